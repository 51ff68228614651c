"""Tasks to learn from: sampled shapes of the kinds that networks are made of, none of them a task of the benchmark models.

Every contraction here has a depth or a number of columns that no layer of the benchmark models has
(:data:`BENCHMARK_EXTENTS`), so that the shipped weights are never evaluated on what they were trained on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from ..codegen.target import Target
from ..codegen.task import Task
from ..ir import DType, Graph, GraphBuilder, Layout, TensorType, Value, canonicalise

BENCHMARK_EXTENTS = frozenset(
    {
        *(1, 2, 3, 9, 10, 16, 24, 32, 64, 96, 128, 144, 160, 192, 256, 320, 384, 512, 576, 768, 784, 960, 1000, 1024, 1280, 1536, 2048),
        *(2304, 2816, 3072, 4096, 4608, 5632, 30522, 32000, 50257),
    }
)
"""Channels and features of the benchmark models' layers (also where several layers are fused into one)."""

_OTHER_EXTENTS = (
    *(40, 48, 56, 72, 80, 88, 104, 112, 120, 136, 176, 200, 224, 240, 272, 336, 352, 416, 448, 480),
    *(544, 640, 672, 736, 800, 896, 1152, 1344),
)
_ROWS = (1, 4, 8, 17, 32, 50, 64, 77, 100, 128, 160, 197, 224, 256, 384)
_CHANNELS_LAST = Layout((0, 2, 3, 1))


def sample_tasks(count: int, seed: int, target: Target, threads: int) -> list[Task]:
    """``count`` different tasks, the same ones for the same seed: a longer list begins with a shorter one."""
    generator = random.Random(seed)
    found: dict[str, Task] = {}
    for graph, constants in _endless(generator):
        task = Task(canonicalise(graph), constants, target, threads)
        found.setdefault(task.key, task)
        if len(found) >= count:
            break
    return list(found.values())


def _endless(generator: random.Random) -> Iterator[tuple[Graph, frozenset[int]]]:
    families: tuple[tuple[Callable[[random.Random], tuple[Graph, frozenset[int]]], int], ...] = (
        (_linear, 4),
        (_batched_matmul, 1),
        (_convolution, 5),
    )
    while True:
        (family,) = generator.choices([family for family, _ in families], [weight for _, weight in families])
        yield family(generator)


def _extents(generator: random.Random, largest: int) -> tuple[int, int]:
    """Two extents of which at most one is of the benchmark models."""
    new = generator.choice([extent for extent in _OTHER_EXTENTS if extent <= largest])
    known = [extent for extent in BENCHMARK_EXTENTS if 16 <= extent <= largest]
    pair = [new, generator.choice(sorted({*_OTHER_EXTENTS, *known}))]
    pair[1] = min(pair[1], largest)
    generator.shuffle(pair)
    return pair[0], pair[1]


def _tensor(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(DType.FLOAT32, shape, layout or Layout.row_major(len(shape)))


def _epilogue(generator: random.Random, builder: GraphBuilder, value: Value) -> Value:
    """Nothing, an activation, or a residual with an activation: what usually follows."""
    kind = generator.choice(("none", "relu", "residual"))
    if kind == "none":
        return value
    if kind == "residual":
        value = builder.add("add", value, builder.input(value.type), types=[value.type]).output
    return builder.add("relu", value, types=[value.type]).output


def _linear(generator: random.Random) -> tuple[Graph, frozenset[int]]:
    depth, columns = _extents(generator, 1344)
    rows = generator.choice(_ROWS)
    builder = GraphBuilder()
    x, weight = builder.input(_tensor(rows, depth)), builder.input(_tensor(columns, depth))
    operands = [x, weight]
    if generator.random() < 0.7:
        operands.append(builder.input(_tensor(columns)))
    result = builder.add("linear", *operands).output
    constants = frozenset(range(1, len(operands)))
    return builder.finish([_epilogue(generator, builder, result)]), constants


def _batched_matmul(generator: random.Random) -> tuple[Graph, frozenset[int]]:
    depth, columns = _extents(generator, 336)
    batch, rows = generator.choice((2, 4, 6, 10, 14)), generator.choice(_ROWS)
    builder = GraphBuilder()
    a, b = builder.input(_tensor(batch, rows, depth)), builder.input(_tensor(batch, depth, columns))
    return builder.finish([_epilogue(generator, builder, builder.add("matmul", a, b).output)]), frozenset()


def _convolution(generator: random.Random) -> tuple[Graph, frozenset[int]]:
    inputs, outputs = _extents(generator, 544)
    window, stride = generator.choice(((1, 1), (1, 1), (1, 2), (3, 1), (3, 1), (3, 2), (5, 1)))
    # Keep one call within a few milliseconds.
    sizes = [size for size in (5, 7, 9, 14, 20, 28, 36, 56, 72) if 2 * (size // stride) ** 2 * window**2 * inputs * outputs <= 1.5e9]
    size = generator.choice(sizes or [7])
    builder = GraphBuilder()
    x = builder.input(_tensor(1, inputs, size, size, layout=_CHANNELS_LAST))
    weight = builder.input(_tensor(outputs, inputs, window, window))
    bias = builder.input(_tensor(outputs))
    pad = window // 2
    extent = (size + 2 * pad - window) // stride + 1
    result = builder.add(
        "conv",
        x,
        weight,
        bias,
        attributes={"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1)},
        types=[_tensor(1, outputs, extent, extent, layout=_CHANNELS_LAST)],
    ).output
    return builder.finish([_epilogue(generator, builder, result)]), frozenset({1, 2})
