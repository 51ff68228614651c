"""The fuzzer: what it generates, that it finds planted faults and makes them small, and that it survives what it finds."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from dying_worker import dying
from tvm import tirx
from typer.testing import CliRunner

from mlc.cli import app
from mlc.codegen.emit import scalar
from mlc.codegen.target import Target
from mlc.fuzz import Failure, Settings, check_graph, check_program, make_case, random_graph, random_inputs, random_program, reduce_graph
from mlc.fuzz.campaign import Campaign, Case, CaseResult, Worker
from mlc.fuzz.reference import difference, reference_of
from mlc.fuzz.steps.elementwise import NEVER
from mlc.ir import Graph, Node, Rewriter, Value, interpret, load_text, parse, print_graph, registry, verify
from mlc.passes import Context, Pipeline
from mlc.passes.base import Pass

INTERPRETED = Settings(Target.parse("cpu -mcpu=x86-64-v3 -threads=1"), native=interpret)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def test_graphs_are_valid_and_use_every_operation() -> None:
    used: collections.Counter[str] = collections.Counter()
    shapes: set[tuple[int, ...]] = set()
    for number in range(700):
        graph = random_graph(generator(3, number))
        verify(graph)
        used.update(node.op for node in graph.walk())
        shapes.update(value.tensor.static_shape for value in graph.values())
    assert set(registry()) - NEVER <= set(used)
    assert () in shapes and any(0 in shape for shape in shapes) and any(shape and set(shape) == {1} for shape in shapes)


def test_cases_follow_from_their_seed() -> None:
    def texts(seed: int) -> list[str]:
        cases = [make_case(seed, number) for number in range(6)]
        graphs = [print_graph(random_graph(case.generator)) for case in cases[::2]]
        return [*map(Case.describe, cases), *graphs, *(random_program(case.generator).source() for case in cases[1::2])]

    assert texts(5) == texts(5) and texts(5) != texts(6)


def test_torch_programs_import_and_survive_the_passes() -> None:
    outcomes = [check_program(random_program(generator(4, number)), INTERPRETED)[0] for number in range(6)]
    assert not [str(outcome.failure) for outcome in outcomes if outcome.failure is not None]
    assert sum(outcome.refused is None for outcome in outcomes) >= 3


@dataclass(frozen=True)
class WrongPass(Pass):
    """Takes the smaller for the larger."""

    name: ClassVar[str] = "wrong"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        def rule(rewriter: Rewriter, node: Node) -> Sequence[Value] | None:
            return [rewriter.builder.call("minimum", *(rewriter[value] for value in node.inputs))]

        return Rewriter(graph).run({"maximum": rule})


def test_a_wrong_pass_is_found_named_and_reduced() -> None:
    settings = Settings(INTERPRETED.target, pipeline=Pipeline((WrongPass(),)), native=interpret)
    for number in range(100):
        graph = random_graph(generator(1, number))
        inputs = random_inputs(graph, generator(2, number))
        failure = check_graph(graph, inputs, settings).failure
        if failure is not None:
            break
    else:
        pytest.fail("100 graphs did not show the fault")
    assert failure.stage == "pass 0 'wrong'" and failure.kind == "wrong"
    reduced = reduce_graph(graph, inputs, failure, settings)
    assert [node.op for node in reduced.graph.nodes if node.op not in ("constant", "full")] == ["maximum"]
    assert all(value.tensor.elements <= 2 for value in reduced.graph.values())
    assert check_graph(parse(print_graph(reduced.graph)), reduced.inputs, settings).failure == reduced.failure


def test_a_wrong_kernel_is_found_and_reduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def slightly_off(bind: Any, x: Sequence[Any], attributes: Any, dtype: Any) -> Any:
        return tirx.Mul(tirx.tanh(x[0]), tirx.const(1.001, "float32"))

    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(scalar.RULES, "tanh", slightly_off)
    graph = parse(
        """graph @main(%a: f32[3,5], %b: f32[5]) {
          %x = add(%a, %b) : f32[3,5]
          %y = tanh(%x) : f32[3,5]
          %z = sub(%y, %a) : f32[3,5]
          return %z, %x
        }"""
    )
    settings = Settings(Target.parse("cpu -threads=1"))
    inputs = random_inputs(graph, generator(0))
    failure = check_graph(graph, inputs, settings).failure
    assert failure is not None and failure.stage == "native" and failure.kind == "wrong"
    reduced = reduce_graph(graph, inputs, failure, settings, seconds=60)
    assert [node.op for node in reduced.graph.nodes] == ["tanh"]


def test_right_kernels_pass() -> None:
    graph = parse("graph @main(%a: f32[7]) {\n  %x = exp(%a) : f32[7]\n  %y = gt(%x, %a) : b1[7]\n  return %x, %y\n}")
    assert check_graph(graph, random_inputs(graph, generator(0)), Settings(Target.parse("cpu -threads=1"))).failure is None


@pytest.mark.parametrize(
    ("text", "changed", "wrong"),
    [
        ("mul(%a, %a)", lambda result: result * (1 + 1e-7), False),
        ("mul(%a, %a)", lambda result: result * (1 + 1e-4), True),
        ("mul(%a, %a)", lambda result: np.where(result == result[3], np.nan, result), True),
        ("sqrt(%a)", lambda result: np.where(np.isnan(result), 0.0, result), True),
        # Noise decides where sines of such large numbers lie.
        ("sin(%big)", lambda result: -result, False),
    ],
)
def test_what_counts_as_different(text: str, changed: Any, wrong: bool) -> None:
    graph = parse(
        f"""graph @main(%a: f32[8]) {{
          %c = full() {{shape = [8], value = 100000000.0, dtype = f32}} : f32[8]
          %s = square(%a) : f32[8]
          %big = mul(%s, %c) : f32[8]
          %y = {text} : f32[8]
          return %y
        }}"""
    )
    reference = reference_of(graph, [np.linspace(-1.1, 2, 8, dtype=np.float32)])
    noisy = [sample[0] for sample in reference.noisy]
    assert difference(reference.truth[0], reference.truth[0], noisy, graph.outputs[0]) is None
    assert (difference(changed(reference.truth[0]), reference.truth[0], noisy, graph.outputs[0]) is not None) == wrong


def test_flipping_comparisons_are_left_out_and_steady_ones_are_not() -> None:
    graph = parse("graph @main(%a: f32[4]) {\n  %s = sin(%a) : f32[4]\n  %y = gt(%a, %s) : b1[4]\n  return %y\n}")
    reference = reference_of(graph, [np.array([1e-5, 1.0, -1.0, 2.0], np.float32)])
    noisy = [sample[0] for sample in reference.noisy]
    truth = reference.truth[0]
    assert difference(truth ^ [True, False, False, False], truth, noisy, graph.outputs[0]) is None
    assert difference(truth ^ [False, True, False, False], truth, noisy, graph.outputs[0]) is not None


def test_a_crash_is_a_failure_and_the_run_goes_on() -> None:
    worker = Worker(6, 0.0, dying)
    try:
        results = [worker.run(number) for number in range(3)]
    finally:
        worker.stop()
    assert [result.refused for result in results] == ["case 0 of seed 6", None, "case 2 of seed 6"]
    failure = results[1].failure
    assert isinstance(failure, Failure) and failure.kind == "crash" and "9" in failure.message


def test_reproducers_are_written(tmp_path: Path) -> None:
    graph = random_graph(generator(9))
    Campaign(folder=tmp_path).write(CaseResult(0, 4, Failure("native", "wrong", "off by one"), reproducer="# as text", graph=graph))
    assert (tmp_path / "seed0-case4.txt").read_text() == "# as text"
    assert print_graph(load_text(tmp_path / "seed0-case4.ir")) == print_graph(graph)


def test_command_line_runs_cases() -> None:
    result = CliRunner().invoke(app, ["fuzz", "--seed", "1", "--count", "2"])
    assert result.exit_code == 0, result.output
    assert "seed 1: 2 cases" in result.output
