"""Tasks to learn from: sampled shapes of the kinds that networks are made of, none of them a task of the benchmark models.

Every contraction here has a depth or a number of columns that no layer of the benchmark models has, and every other operation a width that
none has (:data:`BENCHMARK_EXTENTS`), so that the shipped weights are never evaluated on what they were trained on.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

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
    *(544, 640, 672, 736, 800, 896, 1152, 1344, 1792, 2560, 3584),
)
_ROWS = (1, 4, 8, 17, 32, 50, 64, 77, 100, 128, 160, 197, 224, 256, 384)
_MANY_ROWS = (500, 625, 800, 1200, 1600, 2500, 3200)
_SIZES = (5, 7, 9, 14, 20, 28, 36, 56, 72)
_LONGEST = 1.5e9
"""Operations of the longest call: a few milliseconds."""
_CHANNELS_LAST = Layout((0, 2, 3, 1))

Sampled = tuple[Graph, frozenset[int]]
"""A region and the positions of its constant inputs."""


class Family(enum.Enum):
    """What a sampled task is around."""

    LINEAR = "linear"
    BATCHED_MATMUL = "batched matmul"
    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise convolution"
    ATTENTION = "attention"
    ROWWISE = "rowwise"
    ELEMENTWISE = "elementwise"
    IMAGE = "convolution of an image"
    LONG_LINEAR = "linear over many rows"


USUAL = tuple(family for family in Family if family not in (Family.IMAGE, Family.LONG_LINEAR))
"""What is sampled where no families are named, so that a seed goes on standing for the same tasks."""


def sample_tasks(count: int, seed: int, target: Target, threads: int, families: Sequence[Family] = USUAL) -> list[Task]:
    """``count`` different tasks of ``families``, the same ones for the same seed: a longer list begins with a shorter one."""
    generator = random.Random(seed)
    found: dict[str, Task] = {}
    for graph, constants in _endless(generator, families):
        task = Task(canonicalise(graph), constants, target, threads)
        found.setdefault(task.key, task)
        if len(found) >= count:
            break
    return list(found.values())


def _endless(generator: random.Random, families: Sequence[Family]) -> Iterator[Sampled]:
    while True:
        (family,) = generator.choices(families, [_FAMILIES[family][1] for family in families])
        yield _FAMILIES[family][0](generator)


def _extents(generator: random.Random, largest: int) -> tuple[int, int]:
    """Two extents of which at most one is of the benchmark models."""
    new = _new_extent(generator, largest)
    known = [extent for extent in BENCHMARK_EXTENTS if 16 <= extent <= largest]
    pair = [new, generator.choice(sorted({*_OTHER_EXTENTS, *known}))]
    pair[1] = min(pair[1], largest)
    generator.shuffle(pair)
    return pair[0], pair[1]


def _new_extent(generator: random.Random, largest: int) -> int:
    return generator.choice([extent for extent in _OTHER_EXTENTS if extent <= largest])


def _tensor(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(DType.FLOAT32, shape, layout or Layout.row_major(len(shape)))


def _epilogue(generator: random.Random, builder: GraphBuilder, value: Value) -> Value:
    """Nothing, an activation, or a residual with an activation: what usually follows."""
    kind = generator.choice(("none", "relu", "residual", "gelu", "silu"))
    if kind == "none":
        return value
    if kind == "residual":
        value = builder.add("add", value, builder.input(value.type), types=[value.type]).output
        kind = "relu"
    return builder.add(kind, value, types=[value.type]).output


def _linear(generator: random.Random) -> Sampled:
    rows = generator.choice(_ROWS)
    return _layer(generator, rows, *_extents(generator, 3584 if rows <= 128 else 1344))


def _long_linear(generator: random.Random) -> Sampled:
    """Over the pixels of an image, or a long text."""
    rows = generator.choice(_MANY_ROWS)
    return _layer(generator, rows, *_extents(generator, min(1344, math.isqrt(int(_LONGEST / rows) // 2))))


def _layer(generator: random.Random, rows: int, depth: int, columns: int) -> Sampled:
    """A linear layer with what follows."""
    builder = GraphBuilder()
    x, weight = builder.input(_tensor(rows, depth)), builder.input(_tensor(columns, depth))
    operands = [x, weight]
    if generator.random() < 0.7:
        operands.append(builder.input(_tensor(columns)))
    result = builder.add("linear", *operands).output
    constants = frozenset(range(1, len(operands)))
    return builder.finish([_epilogue(generator, builder, result)]), constants


def _batched_matmul(generator: random.Random) -> Sampled:
    depth, columns = _extents(generator, 336)
    batch, rows = generator.choice((2, 4, 6, 10, 14)), generator.choice(_ROWS)
    builder = GraphBuilder()
    a, b = builder.input(_tensor(batch, rows, depth)), builder.input(_tensor(batch, depth, columns))
    return builder.finish([_epilogue(generator, builder, builder.add("matmul", a, b).output)]), frozenset()


def _convolution(generator: random.Random) -> Sampled:
    window, stride = generator.choice(((1, 1), (1, 1), (1, 2), (3, 1), (3, 1), (3, 2), (5, 1)))
    inputs, outputs = _extents(generator, 1152 if window == 1 else 544)
    sizes = [size for size in _SIZES if 2 * (size // stride) ** 2 * window**2 * inputs * outputs <= _LONGEST]
    return _convolved(generator, inputs, outputs, generator.choice(sizes or [7]), window, stride, groups=1)


def _image(generator: random.Random) -> Sampled:
    """The first layer of a network, over the colours of an image: a window that moves by its stride, or patches."""
    window, stride = generator.choice(((3, 1), (3, 2), (7, 2), (2, 2), (4, 4), (8, 8), (16, 16)))
    size = generator.choice((96, 112, 160, 192, 240))
    return _convolved(generator, generator.choice((1, 3, 4)), _new_extent(generator, 672), size, window, stride, 1)


def _depthwise(generator: random.Random) -> Sampled:
    window, stride = generator.choice(((3, 1), (3, 1), (3, 2), (5, 1), (5, 2), (7, 1)))
    channels = _new_extent(generator, 1152)
    size = generator.choice([size for size in (*_SIZES, 112) if size * size * channels <= 1 << 20])
    return _convolved(generator, channels, channels, size, window, stride, groups=channels)


def _convolved(generator: random.Random, inputs: int, outputs: int, size: int, window: int, stride: int, groups: int) -> Sampled:
    """A convolution with bias and what follows, channels last; padded unless its windows are patches side by side."""
    builder = GraphBuilder()
    x = builder.input(_tensor(1, inputs, size, size, layout=_CHANNELS_LAST))
    weight = builder.input(_tensor(outputs, inputs // groups, window, window))
    bias = builder.input(_tensor(outputs))
    pad = window // 2 if window % 2 else 0
    extent = (size + 2 * pad - window) // stride + 1
    result = builder.add(
        "conv",
        x,
        weight,
        bias,
        attributes={"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": groups},
        types=[_tensor(1, outputs, extent, extent, layout=_CHANNELS_LAST)],
    ).output
    return builder.finish([_epilogue(generator, builder, result)]), frozenset({1, 2})


def _attention(generator: random.Random) -> Sampled:
    """Self-attention, causal or not, or of a few queries to many keys; widths of heads are those that networks have, lengths are not."""
    heads, width = generator.choice((2, 3, 5, 7, 10, 14)), generator.choice((32, 40, 64, 80, 96, 128))
    keys = generator.choice((30, 40, 88, 104, 136, 200, 264, 328, 520, 776))
    is_causal = generator.random() < 0.5
    queries = 1 if generator.random() < 0.25 else keys
    builder = GraphBuilder()
    operands = [builder.input(_tensor(1, heads, length, width)) for length in (queries, keys, keys)]
    causal = is_causal and queries > 1
    return builder.finish([builder.call("attention", *operands, scale=1 / math.sqrt(width), is_causal=causal)]), frozenset()


def _rows_and_width(generator: random.Random) -> tuple[int, int]:
    """Of at most 16 MiB."""
    width = _new_extent(generator, 3584)
    rows = generator.choice([rows for rows in (*_ROWS, 1000, 3136, 12544) if rows * width <= 1 << 22])
    return rows, width


def _rowwise(generator: random.Random) -> Sampled:
    rows, width = _rows_and_width(generator)
    builder = GraphBuilder()
    x = builder.input(_tensor(rows, width))
    kind = generator.choice(("softmax", "layer_norm", "rms_norm", "residual layer_norm"))
    if kind == "softmax":
        return builder.finish([builder.call("softmax", x, axis=1)]), frozenset()
    if kind == "rms_norm":
        return builder.finish([builder.call("rms_norm", x, builder.input(_tensor(width)))]), frozenset({1})
    weight, bias = builder.input(_tensor(width)), builder.input(_tensor(width))
    if kind == "layer_norm":
        return builder.finish([builder.call("layer_norm", x, weight, bias)]), frozenset({1, 2})
    total = builder.call("add", x, builder.input(x.type))
    return builder.finish([total, builder.call("layer_norm", total, weight, bias)]), frozenset({1, 2})


def _elementwise(generator: random.Random) -> Sampled:
    rows, width = _rows_and_width(generator)
    builder = GraphBuilder()
    x = builder.input(_tensor(rows, width))
    kind = generator.choice(("gelu", "silu", "tanh", "exp", "add", "gated"))
    if kind == "add":
        return builder.finish([builder.call("add", x, builder.input(x.type))]), frozenset()
    if kind == "gated":
        return builder.finish([builder.call("mul", builder.call("silu", x), builder.input(x.type))]), frozenset()
    return builder.finish([builder.call(kind, x)]), frozenset()


_FAMILIES: Mapping[Family, tuple[Callable[[random.Random], Sampled], int]] = MappingProxyType(
    {
        Family.LINEAR: (_linear, 5),
        Family.BATCHED_MATMUL: (_batched_matmul, 2),
        Family.CONVOLUTION: (_convolution, 6),
        Family.DEPTHWISE: (_depthwise, 2),
        Family.ATTENTION: (_attention, 2),
        Family.ROWWISE: (_rowwise, 2),
        Family.ELEMENTWISE: (_elementwise, 1),
        Family.IMAGE: (_image, 1),
        Family.LONG_LINEAR: (_long_linear, 1),
    }
)
"""Of each family what samples a task, and how often relative to the others."""
