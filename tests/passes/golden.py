"""Runs passes on IR text, for tests that show what a pass does by the text before and after."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

import numpy as np

from mlc.codegen.target import Target
from mlc.codegen.task import Numerics
from mlc.ir import Constant, Graph, Trait, interpret, lookup, parse, print_graph, verify
from mlc.passes import Context, Pipeline, random_inputs, relative_difference

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
_ONE_BY_ONE = frozenset({"pad", "concat", "take", "take_along", "take_nd", "resample", "relayout", "batch_norm"})


def one_anchor(region: Graph) -> bool:
    """A stand-in for the templates: takes regions with at most one operation that is not elementwise, whose results have one size."""
    anchors = 0
    for node in region.nodes:
        op = lookup(node.op)
        if not (op.has(Trait.ELEMENTWISE) or op.has(Trait.VIEW) or op.has(Trait.SOURCE) or node.op in _ONE_BY_ONE):
            anchors += 1
    sizes = {value.tensor.elements for value in region.outputs}
    return anchors <= 1 and len(sizes) == 1


CONTEXT = Context(TARGET, threads=2, takes=one_anchor)
STRICT = Context(TARGET, threads=2, takes=one_anchor, numerics=Numerics.STRICT)


def transformed(
    text: str, pipeline: str, ctx: Context = CONTEXT, constants: Mapping[str, Constant] | None = None, tolerance: float = 1e-5
) -> str:
    """The text of ``text`` (a graph, or its body) after ``pipeline``: verified, and shown by the interpreter to compute the same."""
    graph = parse(textwrap.dedent(text), constants)
    result = Pipeline.parse(pipeline).run(graph, ctx)
    verify(result)
    check_same(graph, result, tolerance)
    return print_graph(result, locations=False)


def check_same(graph: Graph, result: Graph, tolerance: float = 1e-5) -> None:
    """Asserts that both graphs compute the same for random inputs."""
    inputs = random_inputs(graph, seed=1)
    for expected, found in zip(interpret(graph, inputs, wide=True), interpret(result, inputs, wide=True), strict=True):
        assert relative_difference(expected, np.asarray(found)) <= tolerance


def check(before: str, pipeline: str, after: str, ctx: Context = CONTEXT, tolerance: float = 1e-5) -> None:
    """Asserts that ``pipeline`` turns one text into the other, up to the names of values."""
    assert renamed(transformed(before, pipeline, ctx, tolerance=tolerance)) == renamed(
        print_graph(parse(textwrap.dedent(after)), locations=False)
    )


def renamed(text: str) -> str:
    """The text with values named by their place, so that texts compare whatever passes call new values."""
    names: dict[str, str] = {}
    result = []
    position = 0
    for match in re.finditer(r"([%@])[\w.$-]+", text):
        result.append(text[position : match.start()])
        result.append(names.setdefault(match.group(), f"{match.group(1)}{len(names)}"))
        position = match.end()
    return "".join(result) + text[position:]
