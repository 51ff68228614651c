"""The text form of pipelines, instruments and bisection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from golden import CONTEXT, TARGET

from mlc.errors import PassError, PipelineSyntaxError
from mlc.ir import Graph, Rewriter, parse
from mlc.passes import (
    Compare,
    Context,
    DeadCode,
    Dump,
    FoldConstants,
    Fuse,
    Pass,
    Pipeline,
    RewriteBudget,
    Simplify,
    Time,
    Verify,
    bisect,
    default_pipeline,
    passes,
)

GRAPH = """
graph @main(%x: f32[4], %i: i64[2]) {
  %a = exp(%x) : f32[4]
  %b = neg(%a) : f32[4]
  %c = neg(%b) : f32[4]
  %d = take(%c, %i) : f32[2]
  return %d
}
"""


@pytest.mark.parametrize("text", ["", "simplify", "simplify,fuse{max_ops=24},layout", "fold-constants{max_elements=1,max_intermediate=2}"])
def test_text_round_trips(text: str) -> None:
    assert str(Pipeline.parse(text)) == text


def test_options_are_typed_and_defaults_left_out() -> None:
    assert Pipeline.parse(" fuse { max_ops = 24 } , dead-code ").passes == (Fuse(max_ops=24), DeadCode())
    assert str(Pipeline((Fuse(), FoldConstants(max_elements=5)))) == "fuse,fold-constants{max_elements=5}"


def test_the_default_pipeline_round_trips_and_every_pass_is_in_the_registry() -> None:
    pipeline = default_pipeline(TARGET)
    assert Pipeline.parse(str(pipeline)) == pipeline
    assert {step.name for step in pipeline.passes} <= set(passes())


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("simplify,fuze", 9, "no pass is called 'fuze' (known: batch-layers, common-subexpressions, "),
        ("fuse{max_opps=2}", 5, "pass 'fuse' has no option 'max_opps' (known: max_ops)"),
        ("fuse{max_ops=many}", 13, "option 'max_ops' needs a whole number, not 'many'"),
        ("fuse{max_ops=2,max_ops=3}", 15, "given twice"),
        ("fuse{max_ops=2", 14, "expected ',', found the end"),
        ("simplify fuse", 9, "expected ',', found 'f'"),
        ("simplify,", 9, "expected the name of a pass, found the end"),
        ("simplify{max=1}", 9, "has no option 'max' (known: none)"),
    ],
)
def test_errors_name_position_and_what_is_known(text: str, position: int, message: str) -> None:
    with pytest.raises(PipelineSyntaxError) as caught:
        Pipeline.parse(text)
    assert message in str(caught.value)
    assert f"at position {position}\n" in str(caught.value)


@dataclass(frozen=True)
class NegToExp(Pass):
    """Wrong on purpose: turns neg into exp, one rewrite for each."""

    name: ClassVar[str] = "neg-to-exp"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        rewriter = Rewriter(graph)
        for node in graph.nodes:
            if node.op == "neg" and node.inputs[0].op == "neg" and ctx.budget.spend():
                rewriter.replace(node.output, rewriter.builder.call("exp", rewriter[node.inputs[0]]))
            else:
                if node.op == "exp":
                    ctx.budget.spend()
                rewriter.copy(node)
        return rewriter.finish()


@dataclass(frozen=True)
class Undefined(Pass):
    """Wrong on purpose: leaves out the first node."""

    name: ClassVar[str] = "undefined"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        return Graph(graph.inputs, graph.nodes[1:], graph.outputs, graph.name)


@dataclass(frozen=True)
class Raising(Pass):
    """Wrong on purpose."""

    name: ClassVar[str] = "raising"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        raise KeyError("lost")


def test_instruments_see_every_pass(tmp_path: Path) -> None:
    time = Time()
    Pipeline.parse("simplify,dead-code").run(parse(GRAPH), CONTEXT, [time, Verify(), Dump(tmp_path), Compare()])
    assert [name for name, _ in time.seconds] == ["simplify", "dead-code"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-input.mlc", "01-simplify.mlc", "02-dead-code.mlc"]
    assert "neg" not in (tmp_path / "02-dead-code.mlc").read_text()
    parse((tmp_path / "01-simplify.mlc").read_text())


def test_verify_names_the_pass_that_gives_an_invalid_graph() -> None:
    with pytest.raises(PassError, match=r"pass 1 'undefined' gave an invalid graph"):
        Pipeline((DeadCode(), Undefined())).run(parse(GRAPH), CONTEXT, [Verify()])


def test_compare_names_the_pass_that_changes_results() -> None:
    with pytest.raises(PassError, match=r"pass 1 'neg-to-exp' changed output 0"):
        Pipeline((DeadCode(), NegToExp())).run(parse(GRAPH), CONTEXT, [Compare()])


def test_a_failing_pass_is_named() -> None:
    with pytest.raises(PassError, match=r"pass 0 'raising' failed on graph @main: KeyError"):
        Pipeline((Raising(),)).run(parse(GRAPH), CONTEXT)


def computes_double_negation(graph: Graph) -> bool:
    return not any(node.op == "exp" and node.inputs[0].node is not None for node in graph.nodes)


def test_bisect_finds_pass_and_rewrite() -> None:
    culprit = bisect(parse(GRAPH), Pipeline((DeadCode(), NegToExp(), Simplify())), CONTEXT, computes_double_negation)
    assert culprit is not None
    assert (culprit.position, culprit.step, culprit.rewrite) == (1, NegToExp(), 2)
    assert str(culprit) == "pass 1 'neg-to-exp', rewrite 2"
    assert computes_double_negation(culprit.before)
    assert culprit.after is not None and not computes_double_negation(culprit.after)


def test_bisect_of_a_good_pipeline_finds_nothing() -> None:
    assert bisect(parse(GRAPH), Pipeline((DeadCode(), Simplify())), CONTEXT, lambda graph: True) is None


def test_bisect_finds_a_pass_that_raises() -> None:
    culprit = bisect(parse(GRAPH), Pipeline((Raising(),)), CONTEXT, lambda graph: True)
    assert culprit is not None and culprit.step == Raising() and culprit.after is None


def test_a_budget_stops_rewriting() -> None:
    graph = parse(GRAPH)
    none = Simplify().apply(graph, Context(TARGET, takes=CONTEXT.takes, budget=RewriteBudget(0)))
    assert sorted(node.op for node in none.nodes) == sorted(node.op for node in graph.nodes)
