"""Loops that Python unrolled: one layer for all steps, and slices that lie together in memory."""

from __future__ import annotations

from golden import check, transformed

from mlc.ir import Graph, parse, print_graph

STEPS = 8


def steps(rank_axis: int, count: int = STEPS) -> str:
    """A layer of each of ``count`` elements of x along an axis."""
    shape = [2, 2, 16]
    shape[rank_axis] = count
    piece = list(shape)
    piece[rank_axis] = 1
    lines = []
    for i in range(count):
        lines += [
            f"%s{i} = slice(%x) {{axis = {rank_axis}, start = {i}, stop = {i + 1}, step = 1}} : f32[{','.join(map(str, piece))}]",
            f"%r{i} = reshape(%s{i}) {{shape = [2,16]}} : f32[2,16]",
            f"%l{i} = linear(%r{i}, %w, %b) : f32[2,32]",
        ]
    results = ", ".join(f"%l{i}" for i in range(count))
    return (
        f"graph @main(%x: f32[{','.join(map(str, shape))}], %w: f32[32,16], %b: f32[32]) {{\n"
        + "\n".join(lines)
        + f"\nreturn {results}\n}}"
    )


def count(graph: Graph, op: str) -> int:
    return sum(node.op == op for node in graph.walk())


def test_layers_of_the_elements_of_a_value_become_one() -> None:
    graph = parse(transformed(steps(1), "batch-layers"))
    assert count(graph, "linear") == 1 and count(graph, "slice") == STEPS
    assert next(node for node in graph.nodes if node.op == "linear").output.tensor.shape == (2, STEPS, 32)


def test_few_elements_keep_their_own_layers() -> None:
    text = print_graph(parse(steps(0, 3)), locations=False)
    check(text, "batch-layers", text)


def test_scattered_slices_are_gathered_once() -> None:
    text = transformed(steps(1), "lead-slices,layout,fuse")
    graph = parse(text)
    relayouts = [node for node in graph.walk() if node.op == "relayout"]
    assert len(relayouts) == 1 and relayouts[0].output.tensor.shape == (STEPS, 2, 16)
    assert all(node.attributes["axis"] == 0 for node in graph.walk() if node.op == "slice")


def test_slices_along_the_first_axis_stay() -> None:
    text = print_graph(parse(steps(0)), locations=False)
    check(text, "lead-slices", text)
