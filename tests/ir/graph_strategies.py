"""Hypothesis strategies for types and whole graphs: symbolic dims, layouts, encodings, constants, regions, tokens, odd locations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from mlc.ir import (
    ArrayConstant,
    Dim,
    DType,
    Encoding,
    Graph,
    GraphBuilder,
    Layout,
    Location,
    Padding,
    SymbolRange,
    TensorType,
    TokenType,
    Value,
    symbol,
)

DTYPES = st.sampled_from(list(DType))
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
SYMBOLS = {"n": SymbolRange(1, 64), "batch_size": SymbolRange(0), "k": SymbolRange(2, 2)}
PREDICATE = TensorType(DType.BOOL, ())


@st.composite
def expressions(draw: st.DrawFn) -> Dim:
    """A symbolic dimension of the forms that shape inference gives rise to."""
    import sympy

    n, batch, k = (symbol(name) for name in SYMBOLS)
    a, b = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return draw(
        st.sampled_from(
            [
                n,
                batch * a,
                n + a,
                a * n + b * k,
                n * k * (batch + b),
                sympy.floor((n + a) / (b + 1)) + 1,
                sympy.ceiling(n / (a + 1)),
                sympy.Max(a, n - b),
                sympy.Min(n, batch, a),
                sympy.Mod(n, a + 1),
                n**2 + b,
                (n + a) * (k + b),
                sympy.floor(n / 2 + batch / 3),
            ]
        )
    )


@st.composite
def layouts(draw: st.DrawFn, rank: int) -> Layout:
    order = tuple(draw(st.permutations(range(rank))))
    if rank == 0 or draw(st.booleans()):
        return Layout(order)
    blocks = draw(st.lists(st.tuples(st.integers(0, rank - 1), st.sampled_from([1, 2, 4, 16])), max_size=3))
    return Layout(order, tuple(blocks), draw(st.sampled_from(Padding)) if blocks else Padding.UNDEFINED)


@st.composite
def encodings(draw: st.DrawFn, dtype: DType, shape: tuple[Dim, ...]) -> Encoding:
    """An encoding that fits a tensor of ``dtype`` and ``shape``, dense more often than not."""
    dense = Encoding()
    if not dtype.is_float or not shape or draw(st.integers(0, 2)):
        return dense
    axis = draw(st.integers(0, len(shape) - 1))
    extent = shape[axis]
    divisor = math.gcd(extent, 4) if isinstance(extent, int) and extent else 4
    return draw(
        st.sampled_from(
            [
                Encoding("affine", (("storage", "i8"), ("scale", 0.02), ("zero_point", -3))),
                Encoding("affine", (("storage", "u8"), ("scale", "#00ff"), ("zero_point", "#12"), ("axis", axis))),
                Encoding("nm_sparse", (("n", 1), ("m", divisor), ("axis", axis))),
                Encoding("affine", (("storage", "i8"), ("scale", "stored"), ("zero_point", "stored"), ("axis", axis))),
                Encoding("grouped", (("storage", "u4"), ("group", 32), ("axis", axis), ("scale", "bf16"), ("zero_point", "stored"))),
                Encoding("block_scaled", (("storage", "e4m3"), ("block", 32), ("axis", axis))),
                Encoding("codebook", (("bits", 3), ("group", 128), ("axis", axis), ("scale", "f16"))),
                Encoding("ternary", (("scale", "f32"),)),
            ]
        )
    )


@st.composite
def tensor_types(draw: st.DrawFn, symbolic: bool = True, plain: bool = False) -> TensorType:
    dims = st.integers(0, 5) if not symbolic else st.one_of(st.integers(0, 5), st.integers(0, 5), expressions())
    dtype, shape = draw(DTYPES), tuple(draw(st.lists(dims, max_size=4)))
    plainly = TensorType(dtype, shape)
    if plain:
        return plainly
    # The type's own shape: an expression that is a number has become one there.
    return TensorType(dtype, shape, draw(layouts(len(shape))), draw(encodings(dtype, plainly.shape)))


TYPES = st.one_of(tensor_types(), st.builds(TokenType), st.builds(TokenType, tensor_types()))


def numpy_constant(dtype: DType, shape: tuple[int, ...], seed: int) -> ArrayConstant:
    """A constant with all kinds of bits in it (but one NaN only, as the text form has no others)."""
    random = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return ArrayConstant(random.integers(0, 2, shape).astype(bool))
    array = np.frombuffer(random.bytes(math.prod(shape) * dtype.nbytes), dtype=dtype.numpy).reshape(shape).copy()
    if dtype.is_float:
        with np.errstate(invalid="ignore"):
            wide = array.astype(np.float64)
        array[np.isnan(wide)] = np.nan
        array[np.isfinite(wide) & (np.abs(wide) < 1e-30)] = -0.0
    return ArrayConstant(array)


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)
LOCATIONS = st.one_of(st.just(Location()), st.builds(Location, TEXTS, TEXTS, TEXTS))


class _Steps:
    """Ways to add a node to a graph under construction. Each takes a value of the pool and returns new ones."""

    def __init__(self, draw: st.DrawFn, builder: GraphBuilder, depth: int) -> None:
        self.draw = draw
        self.builder = builder
        self.depth = depth

    def all(self) -> list[Callable[[Value], list[Value]]]:
        return [
            self.unary,
            self.pad,
            self.permute,
            self.reduce,
            self.constant,
            self.full,
            self.reshape,
            self.sort,
            self.binary,
            self.fusion,
        ] + ([self.cond, self.loop] if self.depth else [])

    def unary(self, x: Value) -> list[Value]:
        dtype = x.tensor.dtype
        if not dtype.is_float:
            return [self.builder.call("cast", x, dtype=self.draw(DTYPES))]
        name = self.draw(st.sampled_from(["exp", "isnan", "gelu", "clamp", "elu", "relayout"]))
        attributes = {
            "gelu": {"approximate": self.draw(st.sampled_from(["none", "tanh"]))},
            "clamp": {"min": self.draw(st.none() | NUMBERS), "max": self.draw(st.none() | NUMBERS)},
            "elu": {"alpha": self.draw(st.floats())},
        }.get(name, {})
        node = self.builder.add(name, x, attributes=attributes)
        type = node.output.tensor
        layout = self.draw(layouts(type.rank))
        encoding = self.draw(encodings(type.dtype, type.shape))
        node.output.type = TensorType(type.dtype, type.shape, layout, encoding)
        return [node.output]

    def pad(self, x: Value) -> list[Value]:
        value = self.draw(st.floats()) if x.tensor.dtype.is_float else 0
        return [self.builder.call("pad", x, pads=((1, 0),) * x.tensor.rank, value=value)]

    def permute(self, x: Value) -> list[Value]:
        return [self.builder.call("permute", x, order=tuple(self.draw(st.permutations(range(x.tensor.rank)))))]

    def reduce(self, x: Value) -> list[Value]:
        axes = tuple(axis for axis in range(x.tensor.rank) if self.draw(st.booleans()))
        return [self.builder.call("reduce", x, kind="any", axes=axes, keepdims=self.draw(st.booleans()))]

    def reshape(self, x: Value) -> list[Value]:
        return [self.builder.call("reshape", x, shape=(1, *x.tensor.shape))]

    def sort(self, x: Value) -> list[Value]:
        return list(self.builder.add("sort", x, attributes={"axis": -1}).outputs) if x.tensor.rank else [x]

    def binary(self, x: Value) -> list[Value]:
        return [self.builder.call("eq", x, x)] if x.tensor.dtype is not DType.COMPLEX64 else [x]

    def constant(self, x: Value) -> list[Value]:
        shape = self.draw(st.sampled_from([(), (0,), (3,), (8, 8), (5, 13), (2, 0, 3)]))
        return [self.builder.constant(numpy_constant(self.draw(DTYPES), shape, self.draw(st.integers(0, 99))))]

    def full(self, x: Value) -> list[Value]:
        dtype = self.draw(st.sampled_from([DType.FLOAT32, DType.INT64, DType.BFLOAT16]))
        value = self.draw(st.integers(-99, 99) if dtype is DType.INT64 else NUMBERS)
        return [self.builder.call("full", shape=(2, *x.tensor.shape), value=value, dtype=dtype)]

    def fusion(self, x: Value) -> list[Value]:
        region = GraphBuilder("body", self.builder.symbols)
        inner = region.input(x.type)
        body = region.finish([region.call("reshape", inner, shape=(*x.tensor.shape, 1)), inner])
        return list(self.builder.add("fusion", x, regions=[body]).outputs)

    def cond(self, x: Value) -> list[Value]:
        predicate = self.builder.call("full", shape=(), value=True, dtype=DType.BOOL)
        branch = _region(self.draw, self.builder, x, self.depth - 1)
        return list(self.builder.add("cond", predicate, x, regions=[branch, branch]).outputs)

    def loop(self, x: Value) -> list[Value]:
        condition = GraphBuilder("condition", self.builder.symbols)
        condition.input(x.type)
        condition_graph = condition.finish([condition.call("full", shape=(), value=False, dtype=DType.BOOL)])
        body = GraphBuilder("body", self.builder.symbols)
        return list(self.builder.add("while", x, regions=[condition_graph, body.finish([body.input(x.type)])]).outputs)


def _region(draw: st.DrawFn, outer: GraphBuilder, x: Value, depth: int) -> Graph:
    builder = GraphBuilder("branch", outer.symbols)
    pool = [builder.input(x.type)]
    for step in draw(st.lists(st.integers(0, 9), max_size=3)):
        pool += _Steps(draw, builder, depth).all()[step](pool[-1])
    return builder.finish(pool[-1:])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A valid graph of up to a dozen nodes."""
    builder = GraphBuilder(draw(st.sampled_from(["main", "a.b-c", "0"])), SYMBOLS)
    pool = [builder.input(draw(tensor_types()), draw(st.sampled_from(["", "x", "a.b$c-1"]))) for _ in range(draw(st.integers(1, 3)))]
    tokens = []
    if draw(st.booleans()):
        state = builder.input(TokenType(draw(tensor_types())))
        value, state = builder.add("state_read", state).outputs
        pool.append(value)
        tokens = [builder.call("state_write", state, value)]
    for _ in range(draw(st.integers(0, 8))):
        builder.location = draw(LOCATIONS)
        steps = _Steps(draw, builder, 1).all()
        pool += draw(st.sampled_from(steps))(draw(st.sampled_from(pool)))
    return builder.finish([*draw(st.lists(st.sampled_from(pool), max_size=3)), *tokens])
