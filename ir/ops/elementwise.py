"""Elementwise operations: each result element depends on one element of every (broadcast) operand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import FLOAT, NUMBER, AttributeKind, choice
from .definition import REQUIRED, Attributes, Op, Trait, elements_written, register, require

# The cost model counts a transcendental function as this many operations: about what its polynomial takes.
TRANSCENDENTAL_FLOPS = 12


def broadcast_shapes(op: str, *shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The NumPy broadcast of ``shapes``; TypeInferenceError when they do not broadcast."""
    rank = max(len(shape) for shape in shapes)
    result: list[Dim] = []
    for position in range(rank):
        extent: Dim = 1
        for shape in shapes:
            index = position - (rank - len(shape))
            if index < 0:
                continue
            dim = shape[index]
            if dim == 1 or dim == extent:
                continue
            require(extent == 1, op, f"shapes {' and '.join(str(list(shape)) for shape in shapes)} do not broadcast")
            extent = dim
        result.append(extent)
    return tuple(result)


def _costing(flops: int) -> Callable[[Sequence[TensorType], Attributes, Sequence[TensorType]], int]:
    def count(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
        return flops * elements_written(inputs, attributes, outputs)

    return count


def _result_layout(inputs: Sequence[TensorType], shape: tuple[Dim, ...]) -> TensorType:
    """The first operand type that already has the result's shape: its layout is the result's."""
    for type in inputs:
        if type.shape == shape:
            return type
    return inputs[0].with_shape(shape)


def elementwise(
    name: str,
    operands: tuple[str, ...],
    reference: Callable[..., Any],
    *,
    kinds: tuple[Kind, ...] = (Kind.INTEGER, Kind.FLOAT),
    result: DType | None = None,
    flops: int = 1,
    commutative: bool = False,
    attributes: dict[str, Any] | None = None,
    attribute_kinds: dict[str, AttributeKind] | None = None,
    doc: str,
) -> Op:
    """Registers an operation over operands of one dtype. ``result`` fixes the result's dtype; else it is the operands'."""

    def infer(inputs: Sequence[TensorType], attrs: Attributes) -> TensorType:
        dtype = inputs[0].dtype
        for type in inputs[1:]:
            require(type.dtype is dtype, name, f"operands have dtypes {dtype.text} and {type.dtype.text}; insert a cast")
        require(dtype.kind in kinds, name, f"does not take {dtype.text}")
        shape = broadcast_shapes(name, *(type.shape for type in inputs))
        return _result_layout(inputs, shape).with_dtype(result or dtype)

    def evaluate(inputs: Sequence[np.ndarray], attrs: Attributes) -> np.ndarray:
        return np.asarray(reference(*inputs, **attrs))

    traits = {Trait.ELEMENTWISE} | ({Trait.COMMUTATIVE} if commutative else set())
    return register(
        Op(
            name,
            operands,
            infer,
            evaluate,
            _costing(flops),
            attributes or {},
            frozenset(traits),
            doc=doc,
            kinds=attribute_kinds or {},
        )
    )


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy import special

    return np.asarray(special.erf(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    decayed = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, decayed) / (1 + decayed))


def _gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2))))


def _relu(x: np.ndarray) -> np.ndarray:
    # Written so that NaN and -0.0 stay.
    return np.asarray(np.where(x < 0, np.zeros_like(x), x))


def _sign(x: np.ndarray) -> np.ndarray:
    return np.asarray((x > 0).astype(x.dtype) - (x < 0).astype(x.dtype))


def _clamp(x: np.ndarray, min: float | None, max: float | None) -> np.ndarray:
    # Written so that NaN stays, and -0.0 where a bound is 0. Where min exceeds max, max wins. A bound that no integer of the dtype reaches
    # limits like the end of its range.
    wide = x if x.dtype.kind == "f" else x.astype(np.int64)
    if min is not None:
        wide = np.where(wide < min, min, wide)
    if max is not None:
        wide = np.where(wide > max, max, wide)
    return wide if x.dtype.kind == "f" else np.clip(wide, np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind != "f":
        return np.asarray(np.remainder(x, y))
    # NumPy gives a zero the sign of y; PyTorch leaves it that of x.
    rest = np.fmod(x, y)
    return np.asarray(np.where((rest != 0) & ((rest < 0) != (y < 0)), rest + y, rest))


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.asarray(np.power(x, y))
    # NumPy refuses negative exponents of integers; the result is that of the division rounded towards zero, and 0 for 1 / 0.
    inverse = np.where(x == 1, 1, np.where(x == -1, np.where(y % 2 == 0, 1, -1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, np.power(x, np.maximum(y, 0)))


def _round_half_even(x: np.ndarray) -> np.ndarray:
    return np.rint(x) if x.dtype.kind == "f" else x


_FLOAT = (Kind.FLOAT,)
_NUMBER = (Kind.INTEGER, Kind.FLOAT)
_ANY = (Kind.BOOL, Kind.INTEGER, Kind.FLOAT)
_BITS = (Kind.BOOL, Kind.INTEGER)

elementwise("neg", ("x",), np.negative, doc="-x")
elementwise("abs", ("x",), np.abs, doc="|x|")
elementwise("square", ("x",), np.square, doc="x * x")
elementwise("sign", ("x",), _sign, doc="-1, 0 or 1; 0 for NaN, as in PyTorch")
elementwise("floor", ("x",), np.floor, kinds=_FLOAT, doc="largest integer not above x")
elementwise("ceil", ("x",), np.ceil, kinds=_FLOAT, doc="smallest integer not below x")
elementwise("round", ("x",), _round_half_even, kinds=_FLOAT, doc="nearest integer, ties to even")
elementwise("trunc", ("x",), np.trunc, kinds=_FLOAT, doc="integer part of x")
elementwise("reciprocal", ("x",), lambda x: 1 / x, kinds=_FLOAT, flops=4, doc="1 / x")
elementwise("sqrt", ("x",), np.sqrt, kinds=_FLOAT, flops=4, doc="square root")
elementwise("rsqrt", ("x",), lambda x: 1 / np.sqrt(x), kinds=_FLOAT, flops=4, doc="1 / sqrt(x)")
elementwise("exp", ("x",), np.exp, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="e to the x")
elementwise("expm1", ("x",), np.expm1, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="exp(x) - 1 without cancellation")
elementwise("log", ("x",), np.log, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="natural logarithm")
elementwise("log1p", ("x",), np.log1p, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="log(1 + x) without cancellation")
elementwise("sin", ("x",), np.sin, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="sine of x radians")
elementwise("cos", ("x",), np.cos, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="cosine of x radians")
for _name, _function, _doc in (
    ("exp2", np.exp2, "2 to the x"),
    ("tan", np.tan, "tangent of x radians"),
    ("asin", np.arcsin, "inverse sine"),
    ("acos", np.arccos, "inverse cosine"),
    ("atan", np.arctan, "inverse tangent"),
    ("sinh", np.sinh, "hyperbolic sine"),
    ("cosh", np.cosh, "hyperbolic cosine"),
    ("asinh", np.arcsinh, "inverse hyperbolic sine"),
    ("acosh", np.arccosh, "inverse hyperbolic cosine"),
    ("atanh", np.arctanh, "inverse hyperbolic tangent"),
):
    elementwise(_name, ("x",), _function, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc=_doc)
elementwise("tanh", ("x",), np.tanh, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="hyperbolic tangent")
elementwise("erf", ("x",), _erf, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="error function")
elementwise("sigmoid", ("x",), _sigmoid, kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="1 / (1 + exp(-x))")
elementwise("relu", ("x",), _relu, doc="max(x, 0); NaN and -0.0 stay")
elementwise("silu", ("x",), lambda x: x * _sigmoid(x), kinds=_FLOAT, flops=TRANSCENDENTAL_FLOPS, doc="x * sigmoid(x)")
elementwise(
    "gelu",
    ("x",),
    _gelu,
    kinds=_FLOAT,
    flops=TRANSCENDENTAL_FLOPS + 4,
    attributes={"approximate": "none"},
    attribute_kinds={"approximate": choice("none", "tanh")},
    doc="Gaussian error linear unit (Hendrycks and Gimpel 2016); approximate is 'none' (erf) or 'tanh'",
)
elementwise(
    "leaky_relu",
    ("x",),
    lambda x, slope: np.where(x > 0, x, slope * x),
    kinds=_FLOAT,
    flops=2,
    attributes={"slope": 0.01},
    attribute_kinds={"slope": FLOAT},
    doc="x where positive, slope * x elsewhere",
)
elementwise(
    "elu",
    ("x",),
    lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.where(x > 0, 0, x))),
    kinds=_FLOAT,
    flops=TRANSCENDENTAL_FLOPS,
    attributes={"alpha": 1.0},
    attribute_kinds={"alpha": FLOAT},
    doc="x where positive, alpha * (exp(x) - 1) elsewhere",
)
elementwise(
    "softplus",
    ("x",),
    lambda x: np.logaddexp(x, 0),
    kinds=_FLOAT,
    flops=2 * TRANSCENDENTAL_FLOPS,
    doc="log(1 + exp(x))",
)
elementwise("hardsigmoid", ("x",), lambda x: np.clip(x / 6 + 0.5, 0, 1), kinds=_FLOAT, flops=4, doc="clamp(x / 6 + 1/2, 0, 1)")
elementwise("hardswish", ("x",), lambda x: x * np.clip(x / 6 + 0.5, 0, 1), kinds=_FLOAT, flops=5, doc="x * hardsigmoid(x)")
elementwise("isnan", ("x",), np.isnan, kinds=_FLOAT, result=DType.BOOL, doc="whether x is NaN")
elementwise("isinf", ("x",), np.isinf, kinds=_FLOAT, result=DType.BOOL, doc="whether x is an infinity")
elementwise("logical_not", ("x",), np.logical_not, kinds=_ANY, result=DType.BOOL, doc="whether x is zero")
elementwise("bitwise_not", ("x",), np.invert, kinds=_BITS, doc="every bit inverted; logical not of a boolean")
elementwise(
    "clamp",
    ("x",),
    _clamp,
    flops=2,
    attributes={"min": None, "max": None},
    attribute_kinds={"min": NUMBER.or_none(), "max": NUMBER.or_none()},
    doc="x limited to [min, max]; None leaves that side open",
)

elementwise("add", ("x", "y"), np.add, kinds=_NUMBER, commutative=True, doc="x + y")
elementwise("sub", ("x", "y"), np.subtract, kinds=_NUMBER, doc="x - y")
elementwise("mul", ("x", "y"), np.multiply, kinds=_ANY, commutative=True, doc="x * y; and of booleans")
elementwise("div", ("x", "y"), np.divide, kinds=_FLOAT, flops=4, doc="x / y")
elementwise("floor_div", ("x", "y"), np.floor_divide, doc="x / y rounded towards minus infinity; undefined for integers when y is 0")
elementwise("remainder", ("x", "y"), _remainder, doc="x - y * floor(x / y): the sign is y's, but that of x where the result is 0")
elementwise("fmod", ("x", "y"), np.fmod, doc="x - y * trunc(x / y): the sign is x's")
elementwise("pow", ("x", "y"), _power, kinds=_NUMBER, flops=2 * TRANSCENDENTAL_FLOPS, doc="x to the power y")
elementwise("atan2", ("y", "x"), np.arctan2, kinds=_FLOAT, flops=2 * TRANSCENDENTAL_FLOPS, doc="angle of the point (x, y) from the x axis")
elementwise("maximum", ("x", "y"), np.maximum, kinds=_ANY, commutative=True, doc="the larger; NaN if either is NaN")
elementwise("minimum", ("x", "y"), np.minimum, kinds=_ANY, commutative=True, doc="the smaller; NaN if either is NaN")
for _name, _compare in {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    elementwise(
        _name,
        ("x", "y"),
        _compare,
        kinds=_ANY,
        result=DType.BOOL,
        commutative=_name in ("eq", "ne"),
        doc=f"x {_name} y",
    )
for _name, _logical in {
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}.items():
    elementwise(
        _name,
        ("x", "y"),
        _logical,
        kinds=_ANY,
        result=DType.BOOL,
        commutative=True,
        doc=f"{_name} of x != 0 and y != 0",
    )
for _name, _bitwise in {
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
}.items():
    elementwise(_name, ("x", "y"), _bitwise, kinds=_BITS, commutative=True, doc=f"{_name} of x and y")


def _infer_where(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    condition, x, y = inputs
    require(condition.dtype is DType.BOOL, "where", f"the condition is {condition.dtype.text}, a boolean is needed")
    require(x.dtype is y.dtype, "where", f"branches have dtypes {x.dtype.text} and {y.dtype.text}; insert a cast")
    shape = broadcast_shapes("where", *(type.shape for type in inputs))
    return _result_layout([x, y, condition], shape).with_dtype(x.dtype)


register(
    Op(
        "where",
        ("condition", "x", "y"),
        _infer_where,
        lambda inputs, attributes: np.where(inputs[0], inputs[1], inputs[2]),
        elements_written,
        traits=frozenset({Trait.ELEMENTWISE}),
        doc="x where the condition holds, y elsewhere",
    )
)


def _evaluate_cast(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (x,) = inputs
    dtype: DType = attributes["dtype"]
    if dtype.kind is Kind.FLOAT:
        # Rounded here: a cast to a narrow float loses bits even where the interpreter keeps float64.
        return dtype.rounded(x).astype(np.float64)
    if x.dtype.kind == "f" and dtype.is_integer:
        # As PyTorch on x86 does: through a 64-bit integer for i64, else a 32-bit one. What these cannot hold becomes their lowest
        # number; then narrower integers wrap.
        register_dtype = DType.INT64.numpy if dtype is DType.INT64 else DType.INT32.numpy
        lowest = int(np.iinfo(register_dtype).min)
        fits = (x > lowest - 1.0) & (x < -float(lowest))
        return np.where(fits, x, lowest).astype(register_dtype).astype(dtype.numpy)
    return x.astype(dtype.numpy)


register(
    Op(
        "cast",
        ("x",),
        lambda inputs, attributes: inputs[0].with_dtype(attributes["dtype"]),
        _evaluate_cast,
        elements_written,
        {"dtype": REQUIRED},
        frozenset({Trait.ELEMENTWISE}),
        doc="x converted to another dtype; floats truncate towards zero when they become integers (out of range: as PyTorch on x86)",
    )
)
