"""One table of operations with operands, attributes and what PyTorch computes for them; several tests go through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mlc.ir import ArrayConstant, DType, Graph, GraphBuilder, TensorType

INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Case:
    """``op`` with attributes on arrays, and the same in PyTorch. ``exact``: equal bit for bit, signs of zeros included."""

    op: str
    operands: tuple[np.ndarray, ...]
    torch: Callable[..., Any]
    attributes: dict[str, Any]
    label: str = ""
    exact: bool = False

    def __str__(self) -> str:
        shapes = "x".join(f"{array.dtype}{list(array.shape)}" for array in self.operands).replace(" ", "")
        attributes = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.op}-{self.label or f'{shapes}-{attributes}'}"

    def graph(self) -> Graph:
        builder = GraphBuilder()
        inputs = [builder.input(type_of(array)) for array in self.operands]
        return builder.finish(builder.add(self.op, *inputs, attributes=self.attributes).outputs)

    def expected(self) -> tuple[np.ndarray, ...]:
        result = self.torch(*(torch.from_numpy(np.array(array)) for array in self.operands))
        return tuple(tensor.numpy() for tensor in (result if isinstance(result, tuple | list) else (result,)))


def type_of(array: np.ndarray) -> TensorType:
    return TensorType(DType.from_numpy(array.dtype), array.shape)


def floats(*shape: int, seed: int = 0, positive: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed + sum(shape)).standard_normal(shape)
    return np.asarray(np.abs(values) + 0.1 if positive else values)


def integers(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed + sum(shape)).integers(low, high, shape)).astype(dtype)


def booleans(*shape: int, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed + sum(shape)).integers(0, 2, shape)).astype(bool)


def case(op: str, operands: Sequence[np.ndarray], function: Callable[..., Any], **attributes: Any) -> Case:
    return Case(op, tuple(operands), function, attributes)


# Elementwise: every operation on several shapes, and on what floats and integers have at their edges.

EDGES = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.5, -2.5, 7.0, 1e-100, 1e200, -1e200, INF, -INF, NAN])
INTEGER_EDGES = [-128, -127, -2, -1, 0, 1, 2, 3, 100, 127]

FLOAT_UNARY: dict[str, Callable[..., Any]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "square": torch.square,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "silu": F.silu,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "logical_not": torch.logical_not,
}
INTEGER_UNARY = {name: FLOAT_UNARY[name] for name in ("neg", "abs", "square", "sign", "relu", "logical_not")} | {
    "bitwise_not": torch.bitwise_not
}
FLOAT_BINARY: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "floor_div": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
INTEGER_BINARY = {name: function for name, function in FLOAT_BINARY.items() if name != "div"} | {
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
}
UNDEFINED_BY_ZERO = ("floor_div", "remainder", "fmod")
BOOLEAN_BINARY = ("mul", "maximum", "minimum", "eq", "ne", "lt", "ge", "logical_and", "logical_xor", "bitwise_and", "bitwise_xor")


def elementwise_cases() -> list[Case]:
    cases = []
    for name, function in FLOAT_UNARY.items():
        for shape in ((), (0, 3), (2, 3)):
            cases.append(case(name, [floats(*shape, positive=name in ("log", "sqrt", "rsqrt", "log1p"))], function))
        cases.append(Case(name, (EDGES,), function, {}, "edges"))
    for name, function in INTEGER_UNARY.items():
        for dtype in (np.int8, np.int64):
            cases.append(Case(name, (np.array(INTEGER_EDGES, dtype),), function, {}, f"edges-{np.dtype(dtype)}", exact=True))
    left, right = (array.reshape(-1) for array in np.meshgrid(EDGES, EDGES))
    for name, function in FLOAT_BINARY.items():
        for first, second in (((), ()), ((2, 3), (3,)), ((2, 1, 3), (4, 1)), ((0, 3), (1, 3)), ((3,), ())):
            cases.append(case(name, [floats(*first, positive=name == "pow"), floats(*second, seed=1)], function))
        cases.append(Case(name, (left, right), function, {}, "edges"))
    for name, function in INTEGER_BINARY.items():
        for dtype in (np.int8, np.int32):
            first, second = (array.reshape(-1).astype(dtype) for array in np.meshgrid(INTEGER_EDGES, INTEGER_EDGES))
            if name in UNDEFINED_BY_ZERO:
                # Undefined for a divisor of 0; the lowest number by -1 overflows the quotient.
                kept = (second != 0) & ~((second == -1) & (first == np.iinfo(dtype).min))
                first, second = first[kept], second[kept]
            cases.append(Case(name, (first, second), function, {}, f"edges-{np.dtype(dtype)}", exact=True))
    for name in BOOLEAN_BINARY:
        cases.append(case(name, [np.array([False, False, True, True]), np.array([False, True, False, True])], INTEGER_BINARY[name]))
    uint8 = np.array([0, 1, 127, 128, 200, 255], np.uint8)
    for name in ("add", "sub", "mul", "maximum"):
        cases.append(case(name, [uint8, uint8[::-1].copy()], FLOAT_BINARY[name]))
    return cases + attribute_cases()


def attribute_cases() -> list[Case]:
    cases = [
        # Not at infinity, where PyTorch's own vector and scalar code differ.
        *(
            case("gelu", [array], lambda x, how=how: F.gelu(x, approximate=how), approximate=how)
            for how in ("none", "tanh")
            for array in (floats(3, 4), np.array(-0.0), np.array([NAN, 0.0, 30.0, -30.0]))
        ),
        case("softplus", [np.array([-800.0, -3.0, -0.0, 5.0, 19.0, 800.0, INF, -INF, NAN])], F.softplus),
        case("elu", [EDGES], lambda x: F.elu(x, 0.3), alpha=0.3),
        case("leaky_relu", [EDGES], lambda x: F.leaky_relu(x, 0.2), slope=0.2),
        case("bitwise_not", [booleans(5)], torch.bitwise_not),
        case("logical_not", [booleans(5)], torch.logical_not),
        case("where", [booleans(2, 3), floats(3), floats(2, 1)], torch.where),
        case("where", [booleans(), floats(2), np.array([NAN, -0.0])], torch.where),
        case("where", [booleans(0), integers(0), integers()], torch.where),
    ]
    for low, high in ((None, 0.5), (-1.0, None), (0.0, 6.0), (1.0, -1.0), (-INF, INF), (-0.0, 0.0)):
        cases.append(case("clamp", [EDGES], lambda x, low=low, high=high: torch.clamp(x, low, high), min=low, max=high))
    cases.append(case("clamp", [integers(9)], lambda x: torch.clamp(x, -3, 4), min=-3, max=4))
    cases.append(case("clamp", [integers(9, dtype=np.uint8, low=0, high=255)], lambda x: torch.clamp(x, 7, 99), min=7, max=99))
    wide = np.array([NAN, INF, -INF, 1e10, 3e9, -3e9, 300.7, -1.5, 1e20, 0.99, -0.99, 127.5, -128.9, 2147483648.0, -2147483649.0])
    for dtype in DType:
        if dtype is not DType.COMPLEX64:
            target = torch_dtype(dtype)
            for array in (wide, wide.astype(np.float32), np.array(INTEGER_EDGES, np.int64) * 999, booleans(6)):
                if array.dtype.kind == "f" and dtype is DType.UINT8:
                    array = array[[0, 1, 6, 9]]  # negative floats as unsigned integers are undefined in C
                cases.append(case("cast", [array], lambda x, target=target: x.to(target).to(comparable(target)), dtype=dtype))
    return cases


def torch_dtype(dtype: DType) -> torch.dtype:
    names = {"bool": "bool", "bfloat16": "bfloat16", "float16": "float16"}
    found = getattr(torch, names.get(dtype.numpy.name, dtype.numpy.name))
    assert isinstance(found, torch.dtype)
    return found


def comparable(dtype: torch.dtype) -> torch.dtype:
    """A dtype that NumPy knows and that holds every value of ``dtype``."""
    return torch.float64 if dtype in (torch.bfloat16, torch.float16) else dtype


# Reductions, normalisations, data movement, indexing, contractions, windows.


def reduction_cases() -> list[Case]:
    x = floats(2, 3, 4)
    special = np.array([[1.0, NAN, 3.0], [INF, -INF, 2.0], [5.0, 5.0, -0.0]])
    cases = []
    dimensional = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}
    for kind, function in dimensional.items():
        for axes in ((0,), (1, 2), (0, 1, 2)):
            for keepdims in (False, True):
                cases.append(
                    case(
                        "reduce",
                        [x],
                        lambda x, f=function, a=axes, k=keepdims: f(x, a, keepdim=k),
                        kind=kind,
                        axes=axes,
                        keepdims=keepdims,
                    )
                )
        cases.append(case("reduce", [special], lambda x, f=function: f(x, (1,)), kind=kind, axes=(1,)))
        cases.append(case("reduce", [floats(0, 3)], lambda x, f=function: f(x, (1,)), kind=kind, axes=(1,)))
    for kind in ("sum", "mean"):
        cases.append(case("reduce", [floats(2, 0)], lambda x, f=dimensional[kind]: f(x, (1,)), kind=kind, axes=(1,)))
    small = integers(3, 5, dtype=np.int8, low=-128, high=128)
    cases += [
        case("reduce", [floats()], lambda x: x, kind="sum", axes=()),
        case("reduce", [x], lambda x: torch.prod(x, 1), kind="prod", axes=(1,)),
        case("reduce", [small], lambda x: torch.sum(x, 1, dtype=torch.int8), kind="sum", axes=(1,)),
        case("reduce", [small], lambda x: torch.prod(x, 1, dtype=torch.int8), kind="prod", axes=(1,)),
        case("reduce", [small], lambda x: torch.amax(x, 1), kind="max", axes=(1,)),
        case("reduce", [booleans(3, 4)], lambda x: torch.any(x, 1), kind="any", axes=(1,)),
        case("reduce", [booleans(3, 4)], lambda x: torch.all(x, 1, keepdim=True), kind="all", axes=(1,), keepdims=True),
        case("reduce", [special], lambda x: torch.any(x, 1), kind="any", axes=(1,)),
        case("reduce", [booleans(2, 0)], lambda x: torch.all(x, 1), kind="all", axes=(1,)),
    ]
    for kind, function in (("argmax", torch.argmax), ("argmin", torch.argmin)):
        for array in (x[:, :, 0], special, small):
            cases.append(case("reduce", [array], lambda x, f=function: f(x, 1, keepdim=True), kind=kind, axes=(1,), keepdims=True))
    for kind, running in (("sum", torch.cumsum), ("prod", torch.cumprod)):
        cases.append(case("scan", [x], lambda x, f=running: f(x, 1), kind=kind, axis=1))
        cases.append(case("scan", [special], lambda x, f=running: f(x, -1), kind=kind, axis=-1))
        cases.append(case("scan", [small], lambda x, f=running: f(x, 0, dtype=torch.int8), kind=kind, axis=0))
        cases.append(case("scan", [floats(0)], lambda x, f=running: f(x, 0), kind=kind, axis=0))
    return cases


def normalisation_cases() -> list[Case]:
    x = floats(2, 6, 5)
    masked = np.array([[1.0, -INF, 2.0], [-INF, -INF, -INF], [INF, 1.0, 2.0], [NAN, 1.0, 2.0], [900.0, 1.0, -900.0]])
    weight, bias, mean, variance = floats(6), floats(6, seed=1), floats(6, seed=2), floats(6, seed=3, positive=True)
    last, last_bias, both = floats(5), floats(5, seed=1), floats(6, 5)
    cases = []
    for op, function in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        for axis in (0, 2, -2):
            cases.append(case(op, [x], lambda x, f=function, a=axis: f(x, a), axis=axis))
        cases.append(case(op, [masked], lambda x, f=function: f(x, 1), axis=1))
        cases.append(case(op, [floats(2, 0)], lambda x, f=function: f(x, 1), axis=1))
    cases += [
        case("layer_norm", [x], lambda x: F.layer_norm(x, (5,))),
        case("layer_norm", [x, last, last_bias], lambda x, w, b: F.layer_norm(x, (5,), w, b, 1e-3), eps=1e-3),
        case("layer_norm", [x, both], lambda x, w: F.layer_norm(x, (6, 5), w), axes=2),
        case("layer_norm", [floats(0, 5), last], lambda x, w: F.layer_norm(x, (5,), w)),
        case("rms_norm", [x], lambda x: F.rms_norm(x, (5,), eps=1e-6)),
        case("rms_norm", [x, last], lambda x, w: F.rms_norm(x, (5,), w, 1e-3), eps=1e-3),
        case("group_norm", [x], lambda x: F.group_norm(x, 3), groups=3),
        case("group_norm", [floats(2, 6), weight], lambda x, w: F.group_norm(x, 2, w), groups=2),
        case("group_norm", [floats(2, 6, 3, 2), weight, bias], lambda x, w, b: F.group_norm(x, 6, w, b, 0.1), groups=6, eps=0.1),
        case("group_norm", [floats(0, 6, 3)], lambda x: F.group_norm(x, 3), groups=3),
        case("batch_norm", [x, mean, variance], lambda x, m, v: F.batch_norm(x, m, v)),
        case(
            "batch_norm",
            [floats(2, 6), mean, variance, weight, bias],
            lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, eps=0.1),
            eps=0.1,
        ),
    ]
    return cases


def movement_cases() -> list[Case]:
    x = floats(2, 3, 4)
    cases = [
        case("reshape", [x], lambda x: x.reshape(4, 6), shape=(4, 6)),
        case("reshape", [floats()], lambda x: x.reshape(1, 1), shape=(1, 1)),
        case("reshape", [floats(0, 3)], lambda x: x.reshape(5, 0), shape=(5, 0)),
        case("reshape", [booleans(1)], lambda x: x.reshape(()), shape=()),
        case("permute", [x], lambda x: x.permute(2, 0, 1), order=(2, 0, 1)),
        case("permute", [x], lambda x: x.permute(-1, 0, 1), order=(-1, 0, 1)),
        case("permute", [floats()], lambda x: x, order=()),
        case("broadcast_to", [floats(3, 1)], lambda x: x.expand(2, 3, 4), shape=(2, 3, 4)),
        case("broadcast_to", [integers()], lambda x: x.expand(2, 0), shape=(2, 0)),
        case("slice", [x], lambda x: x[:, 1:3], axis=1, start=1, stop=3),
        case("slice", [x], lambda x: x[..., 0:4:3], axis=-1, stop=4, step=3),
        case("slice", [x], lambda x: x[1:1], axis=0, start=1, stop=1),
        case("flip", [x], lambda x: x.flip(0, 2), axes=(0, -1)),
        case("flip", [x], lambda x: x, axes=()),
        case("concat", [x, floats(2, 1, 4), floats(2, 0, 4)], lambda *x: torch.cat(x, 1), axis=1),
        case("concat", [booleans(2), booleans(3)], lambda *x: torch.cat(x, -1), axis=-1),
        case("pad", [x], lambda x: F.pad(x, (1, 2, 0, 0, 3, 0), value=-INF), pads=((3, 0), (0, 0), (1, 2)), value=-INF),
        case("pad", [integers(2)], lambda x: F.pad(x, (1, 1), value=7), pads=((1, 1),), value=7),
        case("pad", [booleans(2)], lambda x: F.pad(x, (0, 1)), pads=((0, 1),)),
        case("pad", [floats()], lambda x: x, pads=()),
        case("relayout", [x], lambda x: x),
        case("iota", [], lambda: torch.arange(5), size=5),
        case("iota", [], lambda: torch.arange(3, 9, 2, dtype=torch.int32), size=3, start=3, step=2, dtype=DType.INT32),
        case("iota", [], lambda: 0.5 - 0.25 * torch.arange(3.0), size=3, start=0.5, step=-0.25, dtype=DType.FLOAT32),
        case("iota", [], lambda: torch.arange(0), size=0),
        case("full", [], lambda: torch.full((2, 3), NAN), shape=(2, 3), value=NAN, dtype=DType.FLOAT32),
        case("full", [], lambda: torch.full((), 7), shape=(), value=7, dtype=DType.INT64),
        case("full", [], lambda: torch.full((2,), True), shape=(2,), value=True, dtype=DType.BOOL),
        case("take", [x, integers(2, 2, low=-3, high=3)], lambda x, i: x[:, i], axis=1),
        case("take", [x, np.array(1)], lambda x, i: x[i]),
        case("take", [integers(5), np.array([], np.int32)], lambda x, i: x[i.long()]),
        case("take_along", [x, integers(2, 2, 4, low=0, high=3)], lambda x, i: torch.gather(x, 1, i), axis=1),
        case("take_along", [x, integers(1, 5, 2, low=0, high=3)], lambda x, i: torch.gather(x, -2, i), axis=-2),
        case("take_nd", [x, integers(5, 2, low=0, high=2)], lambda x, i: x[i[:, 0], i[:, 1]]),
        case("take_nd", [x, np.array([1, 2, -1])], lambda x, i: x[1, 2, -1]),
    ]
    ties = np.array([[3.0, 1.0, NAN, 1.0, -0.0, 0.0, INF, 3.0]])
    for descending in (False, True):
        for array in (x, ties, integers(3, 7, low=0, high=3), booleans(2, 6), floats(0, 2)):
            cases.append(
                case(
                    "sort",
                    [array],
                    lambda x, d=descending: torch.sort(x, dim=-1, descending=d, stable=True),
                    axis=-1,
                    descending=descending,
                )
            )
        cases.append(case("sort", [x], lambda x, d=descending: torch.topk(x, 2, 2, largest=d), axis=2, descending=descending, count=2))
    return cases


def _padded(x: torch.Tensor, *pads: tuple[int, int]) -> torch.Tensor:
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair])


def contraction_cases() -> list[Case]:
    image, line = floats(2, 4, 7, 6), floats(2, 4, 9)
    q, k, v = floats(2, 4, 3, 5), floats(2, 2, 6, 5), floats(2, 2, 6, 7)
    mask = booleans(3, 6) | np.eye(3, 6, dtype=bool)
    mask[1] = False
    attend = F.scaled_dot_product_attention
    conv1, conv2 = floats(6, 2, 3), floats(6, 4, 3, 2)
    transposed = floats(4, 3, 3, 2)
    return [
        case("matmul", [floats(2, 3), floats(3, 4)], torch.matmul),
        case("matmul", [floats(5, 1, 2, 3), floats(4, 3, 2)], torch.matmul),
        case("matmul", [floats(2, 0), floats(0, 4)], torch.matmul),
        case("matmul", [integers(2, 3, dtype=np.int32), integers(3, 2, dtype=np.int32)], torch.matmul),
        case("linear", [floats(2, 3, 4), floats(5, 4), floats(5)], F.linear),
        case("linear", [floats(4), floats(5, 4)], F.linear),
        case("linear", [floats(0, 4), floats(5, 4), floats(5)], F.linear),
        case(
            "conv",
            [line, conv1, floats(6)],
            lambda x, w, b: F.conv1d(_padded(x, (2, 1)), w, b, 2, 0, 2, 2),
            stride=(2,),
            padding=((2, 1),),
            dilation=(2,),
            groups=2,
        ),
        case("conv", [image, conv2], F.conv2d, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1)),
        case(
            "conv",
            [image, conv2, floats(6)],
            lambda x, w, b: F.conv2d(_padded(x, (1, 0), (0, 2)), w, b, (2, 3)),
            stride=(2, 3),
            padding=((1, 0), (0, 2)),
            dilation=(1, 1),
        ),
        case(
            "conv",
            [image, floats(8, 1, 3, 3)],
            lambda x, w: F.conv2d(x, w, None, 1, 1, 1, 4),
            stride=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
            groups=4,
        ),
        case(
            "conv",
            [floats(1, 2, 4, 4, 3), floats(3, 2, 2, 3, 1)],
            F.conv3d,
            stride=(1, 1, 1),
            padding=((0, 0),) * 3,
            dilation=(1, 1, 1),
        ),
        case("conv", [floats(0, 4, 9), floats(6, 4, 3)], F.conv1d, stride=(1,), padding=((0, 0),), dilation=(1,)),
        case(
            "conv_transpose",
            [image, transposed, floats(6)],
            lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (1, 1)),
            stride=(2, 3),
            padding=((1, 1), (0, 0)),
            dilation=(1, 1),
            output_padding=(1, 2),
            groups=2,
        ),
        case(
            "conv_transpose",
            [line, floats(4, 5, 3)],
            lambda x, w: F.conv_transpose1d(x, w, None, 2, 0, 0, 1, 2),
            stride=(2,),
            padding=((0, 0),),
            dilation=(2,),
            output_padding=(0,),
        ),
        case(
            "conv_transpose",
            [floats(0, 4, 9), floats(4, 5, 3)],
            F.conv_transpose1d,
            stride=(1,),
            padding=((0, 0),),
            dilation=(1,),
            output_padding=(0,),
        ),
        case("attention", [q, k, v], lambda q, k, v: attend(q, k, v, enable_gqa=True), scale=1 / math.sqrt(5)),
        case(
            "attention", [q, k, v], lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.3, enable_gqa=True), scale=0.3, is_causal=True
        ),
        case("attention", [q, k, v, mask], lambda q, k, v, m: attend(q, k, v, m, scale=0.3, enable_gqa=True), scale=0.3),
        case(
            "attention",
            [q, k, v, np.where(mask, floats(3, 6), -INF)],
            lambda q, k, v, m: attend(q, k, v, m, scale=0.3, enable_gqa=True),
            scale=0.3,
        ),
        case("attention", [q, k[:, :, :0].copy(), v[:, :, :0].copy()], lambda q, k, v: torch.zeros(2, 4, 3, 7).double(), scale=1.0),
        case("attention", [q, q, q[..., :2].copy(), floats(2, 1, 1, 3)], lambda q, k, v, m: attend(q, k, v, m, scale=1.0), scale=1.0),
    ]


def window_cases() -> list[Case]:
    image, line = floats(2, 3, 7, 6), floats(2, 3, 9)
    holes = image.copy()
    holes[0, 0, 2, 2], holes[1, 1, 0, 0] = NAN, -INF
    square = {"window": (3, 2), "stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}
    plain_line = {"window": (4,), "stride": (3,), "dilation": (1,)}
    cases = [case("window_reduce", [array], lambda x: F.max_pool2d(x, (3, 2), 2, 1), kind="max", **square) for array in (image, holes)]
    cases += [
        case(
            "window_reduce",
            [line],
            lambda x: F.max_pool1d(x, 3, 2, 1, 2),
            kind="max",
            window=(3,),
            stride=(2,),
            padding=((1, 1),),
            dilation=(2,),
        ),
        case(
            "window_reduce",
            [integers(1, 2, 8)],
            lambda x: F.max_pool1d(x.double(), 4, 3).long(),
            kind="max",
            padding=((0, 0),),
            **plain_line,
        ),
        case("window_reduce", [image], lambda x: F.avg_pool2d(x, (3, 2), 2, 1), kind="mean", **square),
        case(
            "window_reduce",
            [image],
            lambda x: F.avg_pool2d(x, (3, 2), 2, 1, count_include_pad=False),
            kind="mean",
            count_include_pad=False,
            **square,
        ),
        case("window_reduce", [image], lambda x: F.avg_pool2d(x, (3, 2), 2, 1, divisor_override=5), kind="mean", divisor=5, **square),
        # ceil_mode: 9 elements and 1 of padding on each side take 4 windows of 4 by steps of 3, the last one element too long.
        case(
            "window_reduce",
            [line],
            lambda x: F.avg_pool1d(x, 4, 3, 1, ceil_mode=True),
            kind="mean",
            padding=((1, 3),),
            uncounted=(2,),
            **plain_line,
        ),
    ]
    for size in ((14, 12), (5, 9), (7, 6), (1, 1)):
        cases.append(case("resample", [image], lambda x, s=size: F.interpolate(x, s, mode="nearest"), kind="nearest", size=size))
        for corners in (False, True):
            cases.append(
                case(
                    "resample",
                    [image],
                    lambda x, s=size, c=corners: F.interpolate(x, s, mode="bilinear", align_corners=c),
                    kind="linear",
                    size=size,
                    align_corners=corners,
                )
            )
    cases += [
        case("resample", [line], lambda x: F.interpolate(x, scale_factor=1.7, mode="linear"), kind="linear", size=(15,), scales=(1.7,)),
        case("resample", [line], lambda x: F.interpolate(x, scale_factor=1.7, mode="nearest"), kind="nearest", size=(15,), scales=(1.7,)),
        case("resample", [floats(1, 1, 2, 3, 2)], lambda x: F.interpolate(x, (4, 4, 4), mode="trilinear"), kind="linear", size=(4, 4, 4)),
    ]
    return cases


def constant_case() -> Case:
    array = floats(2, 3)
    return case("constant", [], lambda: torch.from_numpy(array), value=ArrayConstant(array))


CASES = [
    *elementwise_cases(),
    *reduction_cases(),
    *normalisation_cases(),
    *movement_cases(),
    *contraction_cases(),
    *window_cases(),
    constant_case(),
]
