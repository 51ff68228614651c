"""Elementwise operations on several shapes, and on what floats and integers have at their edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from op_case import INF, NAN, Case, booleans, case, floats, integers

from mlc.ir import DType

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
    "exp2": torch.exp2,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
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
    "atan2": torch.atan2,
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
INTEGER_BINARY = {name: function for name, function in FLOAT_BINARY.items() if name not in ("div", "atan2")} | {
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
    return torch.float64 if dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2) else dtype
