"""Random well-typed graphs over the registry of operations.

A graph grows node by node: a step picks values made so far (the latest more often, so that chains and fan-out both arise) and adds an
operation with drawn attributes. What an operation does not take is drawn again. Values that would overflow or hit an undefined case (a
logarithm of a large number is fine, an integer division by zero is not) are limited before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import Error
from ..ir import REQUIRED, ArrayConstant, DType, Graph, GraphBuilder, Layout, TensorType, Trait, Value, registry
from .rebuilding import rebuild

_Item = TypeVar("_Item")

EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 33)
MAX_ELEMENTS = 3000
_ATTEMPTS = 60

F32 = DType.FLOAT32
_INTEGERS = (DType.INT64, DType.INT32, DType.INT16, DType.INT8, DType.UINT8)
_STORED = (F32, DType.FLOAT64, DType.BOOL, *_INTEGERS)

_TAMES = frozenset({"abs", "ceil", "clamp", "cos", "floor", "neg", "relu", "round", "sigmoid", "sign", "sin", "tanh", "trunc", "isnan"})
"""Operations whose operands may be of any size."""

_POSITIVE = frozenset(
    {"log", "log2", "log10", "sqrt", "rsqrt", "log1p", "reciprocal", "lgamma", "digamma", "trigamma", "bessel_y0", "bessel_y1"}
)
"""Operations that are mostly given positive operands."""

UNARY_ANY = ("abs", "neg", "square", "sign", "relu", "logical_not", "clamp", "bitwise_not")
BINARY_FLOAT = ("div", "pow", "fmod", "remainder", "floor_div")
BINARY_INTEGER = ("bitwise_and", "bitwise_or", "bitwise_xor", "floor_div", "fmod", "remainder")
_WEIGHTS = {
    "unary": 4,
    "unary_any": 2,
    "binary": 5,
    "binary_float": 2,
    "binary_integer": 1,
    "cast": 1.5,
    "where": 1,
    "constant": 1,
    "full": 1,
    "iota": 0.5,
    "reshape": 2,
    "permute": 2,
    "broadcast": 1,
    "concat": 1,
    "flip": 0.6,
    "pad": 0.8,
    "slice": 2,
    "relayout": 0.6,
    "reduce": 2.5,
    "scan": 0.6,
    "softmax": 1,
    "norm": 1.5,
    "linear": 1.5,
    "matmul": 1.5,
    "conv": 1.5,
    "conv_transpose": 0.5,
    "window": 1,
    "resample": 0.5,
    "attention": 0.5,
    "sort": 0.5,
    "take": 1,
    "scatter": 0.8,
    "grouped": 0.2,
    "cond": 0.2,
    "loop": 0.3,
}
"""How often each kind of step is tried."""

NEVER = frozenset({"state_read", "state_write", "fusion", "while", "put", "bitcast", "nextafter"})
"""Operations that are not generated: they need tokens, are made by passes, may not end, or look at bits, which float64 has others of."""


@functools.cache
def elementwise(operands: int) -> tuple[str, ...]:
    """The elementwise operations of the registry with that many operands, and without attributes that must be given."""
    return tuple(
        name
        for name, op in sorted(registry().items())
        if op.has(Trait.ELEMENTWISE)
        and len(op.operands) == operands
        and name not in (*NEVER, *BINARY_FLOAT, "cast", "where")
        and not any(default is REQUIRED for default in op.attributes.values())
    )


def random_graph(generator: np.random.Generator, nodes: int | None = None) -> Graph:
    """A valid graph of about ``nodes`` operations (default: up to 16) with one to four outputs."""
    maker = _Maker(generator)
    for _ in range(nodes or int(generator.integers(2, 16))):
        maker.step()
    return maker.finish()


def random_inputs(graph: Graph, generator: np.random.Generator) -> list[np.ndarray]:
    """Logical arrays for the inputs: floats of size 1 (some whole, some zero), small integers, either boolean."""
    arrays = []
    for value in graph.inputs:
        shape, dtype = value.tensor.static_shape, value.tensor.dtype
        arrays.append(_array(generator, shape, dtype))
    return arrays


def _array(generator: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    if dtype is DType.BOOL:
        return np.asarray(generator.random(shape) < 0.5)
    if dtype.is_integer:
        low = 0 if dtype is DType.UINT8 else -9
        return np.asarray(generator.integers(low, 10, shape)).astype(dtype.numpy)
    array = np.asarray(generator.standard_normal(shape))
    if generator.random() < 0.2:
        array = np.round(array * 2) / 2
    return array.astype(dtype.numpy)


class _Maker:
    """A graph under construction."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.builder = GraphBuilder()
        self.pool: list[Value] = []
        rank = int(generator.integers(0, 5))
        shape = self.shape(rank)
        for number in range(int(generator.integers(1, 4))):
            own = shape if number == 0 or generator.random() < 0.6 else self.shape(int(generator.integers(0, 5)))
            self.pool.append(self.builder.input(TensorType(self.dtype(), own)))

    # ---- choices ----

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def choice(self, items: Sequence[_Item]) -> _Item:
        return items[int(self.generator.integers(len(items)))]

    def shape(self, rank: int) -> tuple[int, ...]:
        while True:
            shape = tuple(0 if self.chance(0.01) else self.choice(EXTENTS) for _ in range(rank))
            if math.prod(shape) <= MAX_ELEMENTS:
                return shape

    def dtype(self) -> DType:
        return F32 if self.chance(0.75) else self.choice(_STORED)

    def pick(self, accept: Callable[[TensorType], bool] = lambda type: True) -> Value:
        """A value that ``accept`` takes, the latest more often; Error when there is none."""
        fitting = [value for value in self.pool if accept(value.tensor)]
        if not fitting:
            raise Error("no value fits")
        return fitting[-4:][int(self.generator.integers(len(fitting[-4:])))] if self.chance(0.7) else self.choice(fitting)

    def floating(self, rank: int = 0, dtype: DType | None = None) -> Value:
        """A float of at least that rank."""
        return self.pick(lambda type: type.dtype.is_float and type.rank >= rank and (dtype is None or type.dtype is dtype))

    def axis(self, value: Value) -> int:
        if value.tensor.rank == 0:
            raise Error("a scalar has no axes")
        return int(self.generator.integers(value.tensor.rank))

    def array(self, shape: tuple[int, ...], dtype: DType = F32, scale: float = 1.0) -> Value:
        """A constant or, now and then, a new input."""
        if self.chance(0.15):
            return self.builder.input(TensorType(dtype, shape))
        array = _array(self.generator, shape, dtype)
        return self.builder.constant(ArrayConstant(array if dtype is not F32 else (array * scale).astype(np.float32)))

    def limited(self, x: Value, low: float, high: float) -> Value:
        return self.builder.call("clamp", x, min=low, max=high)

    # ---- growing ----

    def step(self) -> None:
        names, weights = list(_WEIGHTS), np.array(list(_WEIGHTS.values()))
        chances = weights / weights.sum()
        for _ in range(_ATTEMPTS):
            make: Callable[[], Value | list[Value]] = getattr(self, names[int(self.generator.choice(len(names), p=chances))])
            before = len(self.builder._nodes), len(self.builder._inputs), dict(self.builder._constants)
            try:
                made = make()
                values = [made] if isinstance(made, Value) else made
                if any(not value.tensor.is_static or value.tensor.elements > MAX_ELEMENTS for value in values):
                    raise Error("too large")
            except Error:
                del self.builder._nodes[before[0] :], self.builder._inputs[before[1] :]
                self.builder._constants = before[2]
                continue
            self.pool += values
            return

    def finish(self) -> Graph:
        used = {value for node in self.builder._nodes for value in node.inputs}
        leaves = [value for value in self.pool if value not in used and value.node is not None]
        outputs = leaves[-4:] or [self.pool[-1]]
        if self.chance(0.3):
            outputs.append(self.choice(self.pool))
        outputs = [self.builder.call("relayout", value) if _strange(value) else value for value in outputs]
        return rebuild(self.builder.finish(outputs))

    # ---- elementwise ----

    def unary(self) -> Value:
        x, op = self.floating(), self.choice(elementwise(1))
        if op not in _TAMES:
            limit = self.choice((0.9, 3.0, 8.0))
            x = self.limited(x, -limit, limit)
        choices: dict[str, dict[str, Any]] = {
            "gelu": {"approximate": self.choice(("none", "tanh"))},
            "elu": {"alpha": self.choice((1.0, 0.5, 2.0))},
            "leaky_relu": {"slope": self.choice((0.01, 0.3))},
        }
        if op in _POSITIVE and self.chance(0.8):
            x = self.builder.call("add", self.builder.call("abs", x), self.number(x, 0.5))
        return self.builder.call(op, x, **choices.get(op, {}))

    def unary_any(self) -> Value:
        x, op = self.pick(), self.choice(UNARY_ANY)
        if op == "clamp":
            low, high = self.choice(((-1, 2), (0, None), (None, 3), (1, 1), (2, -1)))
            return self.builder.call("clamp", x, min=low, max=high)
        return self.builder.call(op, x)

    def number(self, like: Value, value: float) -> Value:
        dtype = like.tensor.dtype
        return self.builder.call("full", shape=(), value=value if dtype.is_float else int(value), dtype=dtype)

    def partner(self, x: Value) -> Value:
        """A value that broadcasts with ``x``: of the pool, a number, or a constant along some of its axes."""
        dtype, shape = x.tensor.dtype, x.tensor.static_shape
        if self.chance(0.5):
            return self.pick(lambda type: type.dtype is dtype)
        if self.chance(0.3):
            return self.number(x, self.choice((0.0, 1.0, -1.0, 2.0, 0.5, 3.0)))
        drop = int(self.generator.integers(len(shape) + 1))
        return self.array(tuple(1 if self.chance(0.3) else extent for extent in shape[drop:]), dtype)

    def binary(self) -> Value:
        x = self.pick()
        y = self.partner(x)
        return self.builder.call(self.choice(elementwise(2)), *((x, y) if self.chance(0.7) else (y, x)))

    def binary_float(self) -> Value:
        x, op = self.floating(), self.choice(BINARY_FLOAT)
        y = self.partner(x)
        if op == "pow":
            base = self.builder.call("add", self.builder.call("abs", self.limited(x, -4.0, 4.0)), self.number(x, 0.25))
            exponent = self.limited(y, -3.0, 3.0) if self.chance(0.5) else self.number(x, self.choice((2.0, 3.0, 0.5, -1.0, -0.5, 0.0)))
            return self.builder.call("pow", base, exponent)
        if self.chance(0.8):
            y = self.builder.call("add", self.builder.call("abs", y), self.number(x, 0.5))
        return self.builder.call(op, x, y)

    def binary_integer(self) -> Value:
        x = self.pick(lambda type: type.dtype.is_integer)
        op = self.choice(BINARY_INTEGER)
        if op.startswith("bitwise"):
            return self.builder.call(op, x, self.partner(x))
        return self.builder.call(op, x, self.number(x, self.choice((1, 2, 3, 7) if x.tensor.dtype is DType.UINT8 else (1, 3, -2, -7))))

    def cast(self) -> Value:
        x, dtype = self.pick(), self.choice(_STORED)
        if x.tensor.dtype.is_float and dtype.is_integer:
            x = self.limited(x, 0.0 if dtype is DType.UINT8 else -100.0, 100.0)
        return self.builder.call("cast", x, dtype=dtype)

    def where(self) -> Value:
        x = self.pick()
        condition = self.pick(lambda type: type.dtype is DType.BOOL) if self.chance(0.5) else self.builder.call("gt", x, self.partner(x))
        return self.builder.call("where", condition, x, self.partner(x))

    # ---- sources and movement ----

    def constant(self) -> Value:
        return self.array(self.shape(int(self.generator.integers(0, 4))), self.dtype())

    def full(self) -> Value:
        dtype = self.dtype()
        value = self.choice((0.0, -0.0, 1.0, 0.5, -2.0)) if dtype.is_float else True if dtype is DType.BOOL else 3
        return self.builder.call("full", shape=self.shape(int(self.generator.integers(0, 3))), value=value, dtype=dtype)

    def iota(self) -> Value:
        dtype = self.choice((DType.INT64, DType.INT32, F32))
        return self.builder.call("iota", size=self.choice(EXTENTS), start=self.choice((0, 3)), step=self.choice((1, 2)), dtype=dtype)

    def reshape(self) -> Value:
        x = self.pick()
        shape = list(x.tensor.static_shape)
        kind = int(self.generator.integers(4))
        if kind == 0:
            shape = [math.prod(shape)]
        elif kind == 1 and len(shape) >= 2:
            at = int(self.generator.integers(len(shape) - 1))
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif kind == 2 and shape:
            at = self.axis(x)
            divisors = [n for n in range(1, shape[at] + 1) if shape[at] % n == 0] or [1]
            part = self.choice(divisors)
            shape[at : at + 1] = [part, shape[at] // part] if shape[at] else [0, 1]
        else:
            shape.insert(int(self.generator.integers(len(shape) + 1)), 1)
        return self.builder.call("reshape", x, shape=tuple(shape))

    def permute(self) -> Value:
        x = self.pick(lambda type: type.rank >= 2)
        return self.builder.call("permute", x, order=tuple(int(axis) for axis in self.generator.permutation(x.tensor.rank)))

    def broadcast(self) -> Value:
        x = self.pick()
        shape = [self.choice(EXTENTS) if extent == 1 and self.chance(0.7) else extent for extent in x.tensor.static_shape]
        return self.builder.call("broadcast_to", x, shape=(*self.shape(int(self.generator.integers(0, 2))), *shape))

    def concat(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        parts = [x]
        for _ in range(int(self.generator.integers(1, 3))):
            shape = list(x.tensor.static_shape)
            same = [v for v in self.pool if v.tensor.rank == len(shape) and v.tensor.dtype is x.tensor.dtype and _alike(v, x, axis)]
            shape[axis] = self.choice(EXTENTS)
            parts.append(self.choice(same) if same and self.chance(0.7) else self.array(tuple(shape), x.tensor.dtype))
        return self.builder.call("concat", *parts, axis=axis)

    def flip(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        return self.builder.call("flip", x, axes=(self.axis(x),))

    def pad(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        pads = tuple((int(self.generator.integers(0, 3)), int(self.generator.integers(0, 3))) for _ in range(x.tensor.rank))
        return self.builder.call("pad", x, pads=pads, value=self.choice((0.0, 1.5)) if x.tensor.dtype.is_float else 0)

    def slice(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        extent = x.tensor.static_shape[axis]
        start = int(self.generator.integers(0, max(extent, 1)))
        stop = int(self.generator.integers(min(start + 1, extent), extent + 1))
        return self.builder.call("slice", x, axis=axis, start=min(start, stop), stop=stop, step=self.choice((1, 1, 1, 2, 3)))

    def relayout(self) -> Value:
        x = self.pick(lambda type: type.rank >= 2)
        layout = Layout(tuple(int(axis) for axis in self.generator.permutation(x.tensor.rank)))
        return self.builder.add("relayout", x, types=[x.tensor.with_layout(layout)]).output

    # ---- reductions ----

    def reduce(self) -> Value:
        x = self.pick()
        kind = self.choice(("sum", "mean", "prod", "max", "min", "any", "all", "argmax", "argmin"))
        axes = tuple(axis for axis in range(x.tensor.rank) if self.chance(0.5))
        if kind.startswith("arg"):
            axes = (self.axis(x),)
        if kind in ("max", "min", "argmax", "argmin") and any(x.tensor.static_shape[axis] == 0 for axis in axes):
            raise Error("nothing to choose from")
        if kind == "prod" and x.tensor.dtype.is_float:
            x = self.limited(x, -1.25, 1.25)
        return self.builder.call("reduce", x, kind=kind, axes=axes, keepdims=self.chance(0.4))

    def scan(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        kind = self.choice(("sum", "prod"))
        if kind == "prod" and x.tensor.dtype.is_float:
            x = self.limited(x, -1.25, 1.25)
        return self.builder.call("scan", x, kind=kind, axis=self.axis(x))

    def softmax(self) -> Value:
        x = self.floating(1)
        return self.builder.call(self.choice(("softmax", "log_softmax")), x, axis=self.axis(x))

    def norm(self) -> Value:
        kind = self.choice(("layer_norm", "rms_norm", "group_norm", "batch_norm"))
        x = self.floating(1 if kind in ("layer_norm", "rms_norm") else 2, F32)
        shape = x.tensor.static_shape
        if kind == "layer_norm":
            axes = int(self.generator.integers(1, min(len(shape), 2) + 1))
            operands = [self.array(shape[-axes:]) for _ in range(int(self.generator.integers(0, 3)))]
            return self.builder.call("layer_norm", x, *operands, axes=axes)
        if kind == "rms_norm":
            return self.builder.call("rms_norm", x, *([self.array(shape[-1:])] if self.chance(0.6) else []))
        channels = shape[1:2]
        operands = [self.array(channels) for _ in range(int(self.generator.integers(0, 3)))]
        if kind == "group_norm":
            groups = self.choice([n for n in range(1, shape[1] + 1) if shape[1] % n == 0] or [1])
            return self.builder.call("group_norm", x, *operands, groups=groups)
        variance = np.abs(self.generator.standard_normal(channels)) + 0.3
        mean, spread = self.array(channels), self.builder.constant(ArrayConstant(variance.astype(np.float32)))
        return self.builder.call("batch_norm", x, mean, spread, *operands)

    # ---- contractions and windows ----

    def linear(self) -> Value:
        x = self.floating(1)
        depth, width, dtype = x.tensor.static_shape[-1], self.choice(EXTENTS), x.tensor.dtype
        bias = [self.array((width,), dtype)] if self.chance(0.6) else []
        return self.builder.call("linear", x, self.array((width, depth), dtype, 1 / math.sqrt(max(depth, 1))), *bias)

    def matmul(self) -> Value:
        a = self.pick(lambda type: type.rank >= 2 and type.dtype in (F32, DType.FLOAT64, DType.INT32, DType.INT64))
        shape, dtype = a.tensor.static_shape, a.tensor.dtype
        fitting = [v for v in self.pool if v.tensor.rank >= 2 and v.tensor.dtype is dtype and v.tensor.static_shape[-2] == shape[-1]]
        if fitting and self.chance(0.5):
            return self.builder.call("matmul", a, self.choice(fitting))
        if self.chance(0.3):
            return self.builder.call(
                "matmul", a, self.builder.call("permute", a, order=(*range(len(shape) - 2), len(shape) - 1, len(shape) - 2))
            )
        batch = shape[:-2] if self.chance(0.5) else ()
        return self.builder.call(
            "matmul", a, self.array((*batch, shape[-1], self.choice(EXTENTS)), dtype, 1 / math.sqrt(max(shape[-1], 1)))
        )

    def _image(self) -> Value:
        x = self.pick(lambda type: type.rank in (3, 4, 5) and type.dtype is F32)
        if 0 in x.tensor.static_shape:
            raise Error("an empty image")
        return x

    def conv(self) -> Value:
        x = self._image()
        channels, spatial = x.tensor.static_shape[1], x.tensor.static_shape[2:]
        depthwise = self.chance(0.35)
        groups = channels if depthwise else self.choice([n for n in range(1, channels + 1) if channels % n == 0])
        if not depthwise and self.chance(0.6):
            groups = 1
        outputs = groups * self.choice((1, 1, 2) if groups > 1 else (1, 3, 8, 16, 17))
        kernel = tuple(self.choice((1, 2, 3)) for _ in spatial)
        weight = self.array((outputs, channels // groups, *kernel), F32, 1 / math.sqrt(channels // groups * math.prod(kernel)))
        bias = [self.array((outputs,))] if self.chance(0.6) else []
        return self.builder.call("conv", x, weight, *bias, groups=groups, **self._geometry(kernel))

    def conv_transpose(self) -> Value:
        x = self._image()
        channels, rank = x.tensor.static_shape[1], x.tensor.rank - 2
        groups = self.choice([n for n in range(1, channels + 1) if channels % n == 0]) if self.chance(0.4) else 1
        kernel = tuple(self.choice((1, 2, 3)) for _ in range(rank))
        weight = self.array((channels, self.choice((1, 2, 5)), *kernel), F32, 1 / math.sqrt(channels))
        geometry = self._geometry(kernel)
        output_padding = tuple(int(self.generator.integers(0, stride)) for stride in geometry["stride"])
        return self.builder.call("conv_transpose", x, weight, groups=groups, output_padding=output_padding, **geometry)

    def _geometry(self, kernel: tuple[int, ...]) -> dict[str, Any]:
        stride = tuple(self.choice((1, 1, 2, 3)) for _ in kernel)
        dilation = tuple(self.choice((1, 1, 1, 2)) for _ in kernel)
        padding = tuple((int(self.generator.integers(0, 2)), int(self.generator.integers(0, 2))) for _ in kernel)
        return {"stride": stride, "dilation": dilation, "padding": padding}

    def window(self) -> Value:
        x = self._image()
        window = tuple(self.choice((1, 2, 3)) for _ in x.tensor.static_shape[2:])
        geometry = self._geometry(window)
        pads = zip(geometry["padding"], window, strict=True)
        geometry["padding"] = tuple((min(low, size // 2), min(high, size // 2)) for (low, high), size in pads)
        if self.chance(0.5):
            return self.builder.call("window_reduce", x, kind="max", window=window, **geometry)
        geometry["dilation"] = (1,) * len(window)
        return self.builder.call("window_reduce", x, kind="mean", window=window, count_include_pad=self.chance(0.5), **geometry)

    def resample(self) -> Value:
        x = self._image()
        size = tuple(self.choice((1, 2, 5, 8)) for _ in x.tensor.static_shape[2:])
        kind = self.choice(("nearest", "linear"))
        return self.builder.call("resample", x, kind=kind, size=size, align_corners=kind == "linear" and self.chance(0.5))

    def attention(self) -> Value:
        batch, heads, length, width = self.choice((1, 2)), self.choice((1, 2, 4)), self.choice((1, 3, 8, 17)), self.choice((2, 4, 7, 8))
        keys, key_heads = self.choice((1, 5, 8, 19)), self.choice([n for n in (1, 2, 4) if heads % n == 0])
        q = self.array((batch, heads, length, width))
        fitting = [value for value in self.pool if value.tensor.dtype is F32 and value.tensor.rank == 4 and value.tensor.elements]
        if fitting and self.chance(0.7):
            q = self.choice(fitting)
            batch, heads, length, width = q.tensor.static_shape
            key_heads = self.choice((1, heads))
        k, v = self.array((batch, key_heads, keys, width)), self.array((batch, key_heads, keys, self.choice((width, 5))))
        mask = []
        if self.chance(0.4):
            mask = [self.array((batch, 1, length, keys), F32)]
        return self.builder.call("attention", q, k, v, *mask, scale=self.choice((1.0, 0.35)), is_causal=not mask and self.chance(0.5))

    def grouped(self) -> Value:
        x = self.pick(lambda type: type.rank == 2 and type.dtype is F32 and type.elements > 0)
        rows, depth = x.tensor.static_shape
        ends = np.sort(self.generator.integers(0, rows + 1, 3)).astype(np.int64)
        return self.builder.call("grouped_matmul", x, self.array((3, depth, 5)), self.builder.constant(ArrayConstant(ends)))

    # ---- indices ----

    def _indices(self, shape: tuple[int, ...], extent: int) -> Value:
        if extent == 0:
            raise Error("nothing to index")
        return self.builder.constant(ArrayConstant(np.asarray(self.generator.integers(-extent, extent, shape)).astype(np.int64)))

    def sort(self) -> list[Value]:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        extent = x.tensor.static_shape[axis]
        count = int(self.generator.integers(0, extent + 1)) if self.chance(0.4) else None
        return list(self.builder.add("sort", x, attributes={"axis": axis, "descending": self.chance(0.5), "count": count}).outputs)

    def take(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1)
        axis = self.axis(x)
        shape = x.tensor.static_shape
        kind = self.choice(("take", "take_along", "take_nd"))
        if kind == "take":
            return self.builder.call("take", x, self._indices(self.shape(int(self.generator.integers(0, 3))), shape[axis]), axis=axis)
        if kind == "take_along":
            along = (*shape[:axis], self.choice(EXTENTS), *shape[axis + 1 :])
            return self.builder.call("take_along", x, self._indices(along, shape[axis]), axis=axis)
        depth = int(self.generator.integers(1, len(shape) + 1))
        return self.builder.call("take_nd", x, self._indices((self.choice(EXTENTS), depth), min(shape[:depth])))

    def scatter(self) -> Value:
        x = self.pick(lambda type: type.rank >= 1 and type.dtype is not DType.BOOL)
        axis, shape, dtype = self.axis(x), x.tensor.static_shape, x.tensor.dtype
        reduction = self.choice(("assign", "add", "mul", "max", "min"))
        if self.chance(0.5):
            along = (*shape[:axis], self.choice(EXTENTS), *shape[axis + 1 :])
            indices = self._indices(along, shape[axis])
            return self.builder.call("scatter_along", x, indices, self.array(along, dtype), axis=axis, reduction=reduction)
        depth = int(self.generator.integers(1, len(shape) + 1))
        count = self.choice(EXTENTS)
        indices = self._indices((count, depth), min(shape[:depth]))
        return self.builder.call("scatter_nd", x, indices, self.array((count, *shape[depth:]), dtype), reduction=reduction)

    # ---- control ----

    def cond(self) -> list[Value]:
        x, y = self.floating(), self.floating()
        positive = self.builder.call("gt", x, self.number(x, 0.0))
        predicate = self.builder.call("reduce", positive, kind="any", axes=tuple(range(x.tensor.rank)))
        branches = []
        for _ in range(2):
            inner = GraphBuilder("branch")
            a, b = inner.input(x.type), inner.input(y.type)
            branches.append(inner.finish([inner.call(self.choice(("tanh", "neg", "relu")), a), inner.call("square", inner.call("sin", b))]))
        return list(self.builder.add("cond", predicate, x, y, regions=branches).outputs)

    def loop(self) -> list[Value]:
        x = self.pick(lambda type: type.dtype is F32 and type.rank >= 1 and 0 < type.static_shape[0] <= 8)
        shape = x.tensor.static_shape
        inner = GraphBuilder("body")
        element = TensorType(F32, shape[1:])
        carried, part = inner.input(element), inner.input(element)
        total = inner.call("tanh", inner.call("add", inner.call(self.choice(("neg", "relu", "sin")), carried), part))
        body = inner.finish([total, inner.call("mul", total, part)])
        attributes = {"trips": shape[0], "carried": 1, "sliced": 1, "reverse": self.chance(0.5)}
        return list(self.builder.add("loop", self.array(shape[1:]), x, attributes=attributes, regions=[body]).outputs)


def _alike(value: Value, like: Value, axis: int) -> bool:
    shapes = [list(each.tensor.static_shape) for each in (value, like)]
    for shape in shapes:
        del shape[axis]
    return shapes[0] == shapes[1]


def _strange(value: Value) -> bool:
    return not value.tensor.layout.is_row_major
