"""Operations on complex numbers, by their real and imaginary parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from ...ir import DType, Value, registry
from ..complex_values import Complex, ComplexOperand, ComplexResult, as_complex, converts_complex, paired, parted
from ..conversion import Conversion, Number
from ..registry import converter_of
from ..unsupported import Unsupported
from .arithmetic import hypot

aten = torch.ops.aten


# What is done to both parts alike

_ALIKE: tuple[OpOverload, ...] = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.repeat.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.flip.default,
    aten.roll.default,
    aten.diagonal.default,
    aten.unfold.default,
    aten.as_strided.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
    aten.embedding.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.resolve_conj.default,
    aten.resolve_neg.default,
    aten.neg.default,
    aten._neg_view.default,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.mean.default,
    aten.mean.dim,
    aten.cumsum.default,
    aten.empty_like.default,
    aten.zeros_like.default,
    aten.zeros.default,
    aten.new_zeros.default,
    aten.empty.memory_format,
    aten.empty_permuted.default,
    aten.new_empty.default,
)


def _part(arguments: Any, number: int) -> Any:
    """Arguments with one part in place of each complex tensor."""
    return pytree.tree_map_only(Complex, lambda z: z.parts[number], arguments, is_leaf=lambda x: isinstance(x, Complex))


def _alike(operation: OpOverload) -> Callable[..., ComplexResult]:
    def convert(c: Conversion, *arguments: Any, **keywords: Any) -> ComplexResult:
        converter = converter_of(operation)
        assert converter is not None, operation
        keywords.pop("dtype", None)
        real, imag = (converter(c, *_part(arguments, number), **_part(keywords, number)) for number in (0, 1))
        if isinstance(real, Value) and isinstance(imag, Value):
            return Complex(real, imag)
        assert not isinstance(real, Value) and not isinstance(imag, Value)
        return [Complex(a, b) for a, b in zip(real, imag, strict=True) if a is not None and b is not None]

    return convert


for _operation in _ALIKE:
    converts_complex(_operation)(_alike(_operation))


def _promoted(operation: OpOverload, *positions: int) -> None:
    """Registers ``operation``, done to both parts alike after its arguments at ``positions`` became complex."""
    convert = _alike(operation)

    @converts_complex(operation)
    def promote(c: Conversion, *arguments: Any, **keywords: Any) -> ComplexResult:
        def operand(x: Any) -> Any:
            return [as_complex(c, item, c.dtype) for item in x] if isinstance(x, list | tuple) else as_complex(c, x, c.dtype)

        given = [operand(x) if position in positions else x for position, x in enumerate(arguments)]
        return convert(c, *given, **keywords)


for _operation, _positions in (
    (aten.cat.default, (0,)),
    (aten.where.self, (1, 2)),
    (aten.index_put.default, (0, 2)),
    (aten.slice_scatter.default, (0, 1)),
    (aten.select_scatter.default, (0, 1)),
    (aten.scatter.src, (0, 3)),
    (aten.scatter_add.default, (0, 3)),
    (aten.masked_fill.Tensor, (0, 2)),
):
    _promoted(_operation, *_positions)


@converts_complex(aten.constant_pad_nd.default)
def pad(c: Conversion, z: Complex, amounts: Sequence[int], value: complex = 0) -> Complex:
    convert: Any = converter_of(aten.constant_pad_nd.default)
    number = complex(value)
    return Complex(convert(c, z.real, amounts, number.real), convert(c, z.imag, amounts, number.imag))


@converts_complex(aten.full.default, aten.full_like.default, aten.new_full.default, aten.scalar_tensor.default, aten.fill.Scalar)
def full(c: Conversion, *arguments: Any, **options: Any) -> Complex:
    """The last positional argument is the value."""
    return as_complex(c, complex(arguments[-1]), c.dtype).map(lambda part: c.broadcast(part, c.shape))


@converts_complex(aten.ones.default, aten.ones_like.default)
def ones(c: Conversion, *arguments: Any, **options: Any) -> Complex:
    return full(c, 1.0)


# Making and taking apart


@converts_complex(aten.complex.default)
def complex_(c: Conversion, real: Value, imag: Value) -> Complex:
    return Complex(*(c.broadcast(c.cast(part, c.dtype), c.shape) for part in (real, imag)))


@converts_complex(aten.polar.default)
def polar(c: Conversion, magnitude: Value, angle: Value) -> Complex:
    size, turn = c.cast(magnitude, c.dtype), c.cast(angle, c.dtype)
    return Complex(c.call("mul", size, c.call("cos", turn)), c.call("mul", size, c.call("sin", turn)))


@converts_complex(aten.view_as_complex.default)
def view_as_complex(c: Conversion, x: Value) -> Complex:
    return parted(c.builder, x)


@converts_complex(aten.view_as_real.default, aten.view_as_real_copy.default)
def view_as_real(c: Conversion, z: Complex) -> Value:
    return paired(c.builder, z)


@converts_complex(aten.real.default)
def real(c: Conversion, z: Complex) -> Value:
    return z.real


@converts_complex(aten.imag.default)
def imag(c: Conversion, z: Complex) -> Value:
    return z.imag


@converts_complex(aten._conj.default, aten._conj_physical.default, aten.conj_physical.default)
def conj(c: Conversion, z: Complex) -> Complex:
    return Complex(z.real, c.call("neg", z.imag))


@converts_complex(aten._to_copy.default)
def to_copy(c: Conversion, x: ComplexOperand, **options: Any) -> Complex | Value:
    """To another precision, from real numbers, or to real ones, which drops the imaginary part."""
    if isinstance(x, Complex) and not options.get("dtype", torch.complex64).is_complex:
        return c.cast(x.real, c.dtype)
    return as_complex(c, x, c.dtype)


@converts_complex(aten.abs.default)
def absolute(c: Conversion, z: Complex) -> Value:
    return hypot(c, z.real, z.imag)


@converts_complex(aten.angle.default)
def angle(c: Conversion, z: Complex) -> Value:
    if "atan2" not in registry():
        raise Unsupported("the angle of a complex number: mlc cannot compute arc tangents yet")
    return c.call("atan2", z.imag, z.real)


@converts_complex(aten.isnan.default)
def isnan(c: Conversion, z: Complex) -> Value:
    return c.call("logical_or", c.call("isnan", z.real), c.call("isnan", z.imag))


@converts_complex(aten.isinf.default)
def isinf(c: Conversion, z: Complex) -> Value:
    return c.call("logical_or", c.call("isinf", z.real), c.call("isinf", z.imag))


# Arithmetic


def _scaled(c: Conversion, z: Complex, factor: Number | complex) -> Complex:
    return z if factor == 1 else multiply(c, z, as_complex(c, factor, z.dtype))


@converts_complex(aten.add.Tensor, aten.add.Scalar)
def add(c: Conversion, x: ComplexOperand, y: ComplexOperand, *, alpha: Number | complex = 1) -> Complex:
    a, b = as_complex(c, x, c.dtype), _scaled(c, as_complex(c, y, c.dtype), alpha)
    return Complex(c.call("add", a.real, b.real), c.call("add", a.imag, b.imag))


@converts_complex(aten.sub.Tensor, aten.sub.Scalar)
def subtract(c: Conversion, x: ComplexOperand, y: ComplexOperand, *, alpha: Number | complex = 1) -> Complex:
    a, b = as_complex(c, x, c.dtype), _scaled(c, as_complex(c, y, c.dtype), alpha)
    return Complex(c.call("sub", a.real, b.real), c.call("sub", a.imag, b.imag))


@converts_complex(aten.rsub.Tensor, aten.rsub.Scalar)
def subtract_from(c: Conversion, x: ComplexOperand, y: ComplexOperand, *, alpha: Number | complex = 1) -> Complex:
    return subtract(c, y, x, alpha=alpha)


def _real_factor(c: Conversion, x: ComplexOperand, dtype: DType) -> Value | None:
    """``x`` as a tensor of ``dtype`` where it is real."""
    if isinstance(x, Complex) or (isinstance(x, complex) and x.imag != 0):
        return None
    return c.operand(x.real if isinstance(x, complex) else x, dtype)


@converts_complex(aten.mul.Tensor, aten.mul.Scalar)
def multiply(c: Conversion, x: ComplexOperand, y: ComplexOperand) -> Complex:
    dtype = c.dtype if c.dtype.is_float else _dtype_of(c, x, y)
    for factor, other in ((x, y), (y, x)):
        real = _real_factor(c, factor, dtype)
        if real is not None:
            z = as_complex(c, other, dtype)
            return Complex(c.call("mul", z.real, real), c.call("mul", z.imag, real))
    return product(c, as_complex(c, x, dtype), as_complex(c, y, dtype))


def _dtype_of(c: Conversion, *operands: ComplexOperand) -> DType:
    """The dtype of the parts in which complex ``operands`` are computed with."""
    return max((x.dtype for x in operands if isinstance(x, Complex)), key=lambda dtype: dtype.bits, default=c.dtype)


def product(c: Conversion, a: Complex, b: Complex) -> Complex:
    """a b."""
    real = c.call("sub", c.call("mul", a.real, b.real), c.call("mul", a.imag, b.imag))
    return Complex(real, c.call("add", c.call("mul", a.real, b.imag), c.call("mul", a.imag, b.real)))


@converts_complex(aten.div.Tensor, aten.div.Scalar)
def divide(c: Conversion, x: ComplexOperand, y: ComplexOperand) -> Complex:
    divisor = _real_factor(c, y, c.dtype)
    a = as_complex(c, x, c.dtype)
    if divisor is not None:
        return Complex(c.call("div", a.real, divisor), c.call("div", a.imag, divisor))
    return quotient(c, a, as_complex(c, y, c.dtype))


def quotient(c: Conversion, a: Complex, b: Complex) -> Complex:
    """a / b; the divisor is scaled by its larger part first, so that squares do not overflow (Smith, CACM 5, 1962)."""
    scale = c.call("maximum", c.call("abs", b.real), c.call("abs", b.imag))
    u, v = c.call("div", b.real, scale), c.call("div", b.imag, scale)
    size = c.call("mul", c.call("add", c.call("square", u), c.call("square", v)), scale)
    real = c.call("add", c.call("mul", a.real, u), c.call("mul", a.imag, v))
    imaginary = c.call("sub", c.call("mul", a.imag, u), c.call("mul", a.real, v))
    return Complex(c.call("div", real, size), c.call("div", imaginary, size))


@converts_complex(aten.square.default)
def square(c: Conversion, z: Complex) -> Complex:
    return product(c, z, z)


@converts_complex(aten.reciprocal.default)
def reciprocal(c: Conversion, z: Complex) -> Complex:
    return quotient(c, as_complex(c, 1, z.dtype), z)


@converts_complex(aten.sgn.default)
def sgn(c: Conversion, z: Complex) -> Complex:
    """z / |z|, 0 for 0."""
    size = absolute(c, z)
    divisor = c.call("where", c.call("eq", size, c.scalar(0, z.dtype)), c.scalar(1, z.dtype), size)
    return z.map(lambda part: c.call("div", part, divisor))


@converts_complex(aten.eq.Tensor, aten.eq.Scalar)
def equal(c: Conversion, x: ComplexOperand, y: ComplexOperand) -> Value:
    dtype = next(z.dtype for z in (x, y) if isinstance(z, Complex))
    a, b = as_complex(c, x, dtype), as_complex(c, y, dtype)
    return c.call("logical_and", c.call("eq", a.real, b.real), c.call("eq", a.imag, b.imag))


@converts_complex(aten.ne.Tensor, aten.ne.Scalar)
def unequal(c: Conversion, x: ComplexOperand, y: ComplexOperand) -> Value:
    return c.call("logical_not", equal(c, x, y))


@converts_complex(aten.exp.default)
def exponential(c: Conversion, z: Complex) -> Complex:
    size = c.call("exp", z.real)
    return Complex(c.call("mul", size, c.call("cos", z.imag)), c.call("mul", size, c.call("sin", z.imag)))


@converts_complex(aten.log.default)
def logarithm(c: Conversion, z: Complex) -> Complex:
    return Complex(c.call("log", absolute(c, z)), angle(c, z))


@converts_complex(aten.sqrt.default)
def square_root(c: Conversion, z: Complex) -> Complex:
    """With t = sqrt((|z| + |re z|) / 2) the parts are t and im z / 2t, or the other way round left of the imaginary axis."""
    half, zero = c.scalar(0.5, z.dtype), c.scalar(0, z.dtype)
    t = c.call("sqrt", c.call("mul", c.call("add", absolute(c, z), c.call("abs", z.real)), half))
    safe = c.call("where", c.call("eq", t, zero), c.scalar(1, z.dtype), t)
    other = c.call("div", c.call("mul", z.imag, half), safe)
    right = c.call("ge", z.real, zero)
    signed = c.call("where", c.call("lt", z.imag, zero), c.call("neg", t), t)
    return Complex(c.call("where", right, t, c.call("abs", other)), c.call("where", right, other, signed))


@converts_complex(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def power(c: Conversion, base: ComplexOperand, exponent: ComplexOperand) -> Complex:
    """Small whole powers by multiplication, others as exp(w log z)."""
    z = as_complex(c, base, c.dtype)
    if isinstance(exponent, int | float) and float(exponent).is_integer() and abs(exponent) <= 64:
        return _whole_power(c, z, int(exponent))
    return exponential(c, product(c, as_complex(c, exponent, c.dtype), logarithm(c, z)))


def _whole_power(c: Conversion, z: Complex, exponent: int) -> Complex:
    if exponent < 0:
        return reciprocal(c, _whole_power(c, z, -exponent))
    result = as_complex(c, 1, z.dtype).map(lambda part: c.broadcast(part, z.shape))
    first = True
    while exponent:
        if exponent & 1:
            result, first = (z if first else product(c, result, z)), False
        exponent >>= 1
        if exponent:
            z = product(c, z, z)
    return result


# Contractions


@converts_complex(aten.mm.default, aten.bmm.default, aten.matmul.default, aten.mv.default, aten.dot.default)
def matmul(c: Conversion, x: ComplexOperand, y: ComplexOperand) -> Complex:
    """One product of real matrices: [re a, im a] times [[re b, im b], [-im b, re b]]; two where one operand is real."""
    convert: Any = converter_of(aten.matmul.default)
    a, b = as_complex(c, x, c.dtype), as_complex(c, y, c.dtype)
    if not isinstance(x, Complex) or not isinstance(y, Complex):
        pairs = [(a.real, part) for part in b.parts] if isinstance(y, Complex) else [(part, b.real) for part in a.parts]
        return Complex(*(convert(c, first, second) for first, second in pairs))
    if a.real.tensor.rank < 2 or b.real.tensor.rank < 2:
        real = c.call("sub", convert(c, a.real, b.real), convert(c, a.imag, b.imag))
        return Complex(real, c.call("add", convert(c, a.real, b.imag), convert(c, a.imag, b.real)))
    left = c.call("concat", a.real, a.imag, axis=a.real.tensor.rank - 1)
    last = b.real.tensor.rank - 1
    above = c.call("concat", b.real, b.imag, axis=last)
    below = c.call("concat", c.call("neg", b.imag), b.real, axis=last)
    both = c.call("matmul", left, c.call("concat", above, below, axis=last - 1))
    axis, columns = both.tensor.rank - 1, b.shape[-1]
    return Complex(c.slice(both, axis, 0, columns), c.slice(both, axis, columns, columns + columns))


@converts_complex(aten.addmm.default, aten.baddbmm.default)
def addmm(c: Conversion, bias: ComplexOperand, x: ComplexOperand, y: ComplexOperand, *, beta: Number = 1, alpha: Number = 1) -> Complex:
    total = _scaled(c, matmul(c, x, y), alpha)
    return add(c, _scaled(c, as_complex(c, bias, c.dtype), beta), total)


@converts_complex(aten.linear.default)
def linear(c: Conversion, x: ComplexOperand, weight: Complex, bias: ComplexOperand | None = None) -> Complex:
    transposed = weight.map(lambda part: c.permute(part, (1, 0)))
    result = matmul(c, x, transposed)
    return result if bias is None else add(c, result, bias)


@converts_complex(aten.linalg_vector_norm.default)
def vector_norm(c: Conversion, z: Complex, *arguments: Any, **keywords: Any) -> Value:
    convert: Any = converter_of(aten.linalg_vector_norm.default)
    keywords.pop("dtype", None)
    result: Value = convert(c, absolute(c, z), *arguments, **keywords)
    return result
