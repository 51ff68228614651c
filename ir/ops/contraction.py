"""Contractions: matrix products, linear layers, convolutions.

Their elements are of one dtype, and so is the result; or the operands are narrower (8-bit integers, floats of 16 bits) and the attribute
``dtype`` says what products are summed and returned in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import Dim, DType, Kind, TensorType
from .attributes import DTYPE, INTEGER
from .definition import REQUIRED, Attributes, Op, Reference, Trait, register, require
from .elementwise import broadcast_shapes

if TYPE_CHECKING:
    from ..graph import GraphBuilder, Value

_CONTRACTION = frozenset({Trait.CONTRACTION})


def _same_dtype(op: str, inputs: Sequence[TensorType]) -> None:
    first = inputs[0].dtype
    require(first.kind in (Kind.INTEGER, Kind.FLOAT), op, f"does not take {first.text}")
    for type in inputs:
        require(type.dtype is first, op, f"operands have dtypes {first.text} and {type.dtype.text}; insert a cast")


_BYTES = (DType.INT8, DType.UINT8)
_HALVES = (DType.FLOAT16, DType.BFLOAT16)
_WIDE = {DType.INT32: "operands of 8-bit integers", DType.FLOAT32: "operands of one 16-bit float dtype"}
_RESULT = {"dtype": DTYPE.or_none()}


def _result_dtype(op: str, inputs: Sequence[TensorType], attributes: Attributes) -> DType:
    """The dtype of the sums; TypeInferenceError unless operands, bias and ``dtype`` go together."""
    dtype: DType | None = attributes["dtype"]
    if dtype is None:
        _same_dtype(op, inputs)
        return inputs[0].dtype
    require(dtype in _WIDE, op, f"cannot sum in {dtype.text}; dtype is i32, f32 or none")
    first, second = (type.dtype for type in inputs[:2])
    fits = first in _BYTES and second in _BYTES if dtype is DType.INT32 else first in _HALVES and first is second
    require(fits, op, f"sums in {dtype.text} take {_WIDE[dtype]}, not {first.text} and {second.text}")
    for bias in inputs[2:]:
        require(bias.dtype is dtype, op, f"the bias is {bias.dtype.text}, the sums are {dtype.text}")
    return dtype


def _summed(reference: Reference) -> Reference:
    """``reference`` for operands of any dtype: 8-bit integers that are summed in i32 are computed with in float64, which holds such sums
    exactly, and give 64-bit integers, whose lower half they wrap to."""

    def evaluate(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
        if attributes["dtype"] is not DType.INT32:
            return np.asarray(reference(inputs, attributes))
        return np.asarray(reference([array.astype(np.float64) for array in inputs], attributes)).astype(np.int64)

    return evaluate


def _infer_matmul(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    a, b = inputs
    dtype = _result_dtype("matmul", inputs, attributes)
    require(a.rank >= 2 and b.rank >= 2, "matmul", f"operands need rank 2 at least, got {list(a.shape)} and {list(b.shape)}")
    require(a.shape[-1] == b.shape[-2], "matmul", f"inner extents of {list(a.shape)} and {list(b.shape)} differ")
    batch = broadcast_shapes("matmul", a.shape[:-2], b.shape[:-2]) if a.rank > 2 or b.rank > 2 else ()
    return a.with_shape((*batch, a.shape[-2], b.shape[-1])).with_dtype(dtype)


register(
    Op(
        "matmul",
        ("a", "b"),
        _infer_matmul,
        _summed(lambda inputs, attributes: np.matmul(inputs[0], inputs[1])),
        lambda inputs, attributes, outputs: 2 * outputs[0].elements * inputs[0].static_shape[-1],
        {"dtype": None},
        _CONTRACTION,
        kinds=_RESULT,
        doc="matrix product over the last two axes; leading axes broadcast: [..., M, K] x [..., K, N] -> [..., M, N]",
    )
)


def _infer_linear(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    dtype = _result_dtype("linear", inputs, attributes)
    require(weight.rank == 2, "linear", f"the weight needs rank 2, got {list(weight.shape)}")
    require(
        x.rank >= 1 and x.shape[-1] == weight.shape[1],
        "linear",
        f"{list(x.shape)} does not fit a weight of {list(weight.shape)} [out, in]",
    )
    if bias:
        require(
            bias[0].shape == weight.shape[:1],
            "linear",
            f"bias {list(bias[0].shape)} does not fit a weight of {list(weight.shape)} [out, in]",
        )
    return x.with_shape((*x.shape[:-1], weight.shape[0])).with_dtype(dtype)


def _decompose_linear(builder: GraphBuilder, inputs: Sequence[Value], attributes: Attributes) -> Value:
    x, weight, *bias = inputs
    transposed = builder.call("permute", weight, order=(1, 0))
    rank = x.tensor.rank
    if rank == 1:
        x = builder.call("reshape", x, shape=(1, x.tensor.shape[0]))
    product = builder.call("matmul", x, transposed, dtype=attributes["dtype"])
    if rank == 1:
        product = builder.call("reshape", product, shape=product.tensor.shape[1:])
    return builder.call("add", product, bias[0]) if bias else product


register(
    Op(
        "linear",
        ("x", "weight", "bias?"),
        _infer_linear,
        _summed(lambda inputs, attributes: inputs[0] @ inputs[1].T + (inputs[2] if len(inputs) > 2 else 0)),
        lambda inputs, attributes, outputs: 2 * outputs[0].elements * inputs[1].static_shape[1],
        {"dtype": None},
        _CONTRACTION,
        _decompose_linear,
        kinds=_RESULT,
        doc="x [..., in] times the transpose of weight [out, in], plus bias [out]",
    )
)


def require_window(op: str, x: TensorType, extents: Sequence[Dim], window: Sequence[Dim]) -> None:
    """TypeInferenceError unless a window of this shape fits at least once into every spatial axis of the padded operand."""
    fits = all(not isinstance(extent, int) or extent >= 1 for extent in extents)
    require(fits, op, f"the window {list(window)} exceeds the padded operand {list(x.shape)}")


def convolved_extent(extent: Dim, window: int, stride: int, padding: tuple[int, int], dilation: int) -> Dim:
    """Result extent of sliding a window along an axis."""
    return (extent + padding[0] + padding[1] - dilation * (window - 1) - 1) // stride + 1


def _infer_conv(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    dtype = _result_dtype("conv", inputs, attributes)
    filling = attributes["filling"]
    holds = filling == 0 or (x.dtype in _BYTES and np.iinfo(x.dtype.numpy).min <= filling <= np.iinfo(x.dtype.numpy).max)
    require(holds, "conv", f"padding of {x.dtype.text} cannot be filled with {filling}; only 8-bit integers have a zero point")
    spatial = x.rank - 2
    groups = attributes["groups"]
    require(
        spatial >= 1 and weight.rank == x.rank,
        "conv",
        f"operand {list(x.shape)} and weight {list(weight.shape)} need the same rank, at least 3",
    )
    require(
        x.shape[1] == weight.shape[1] * groups,
        "conv",
        f"{x.shape[1]} channels do not fit a weight of {list(weight.shape)} in {groups} groups",
    )
    require(
        not isinstance(weight.shape[0], int) or weight.shape[0] % groups == 0,
        "conv",
        f"{weight.shape[0]} outputs in {groups} groups",
    )
    for name in ("stride", "padding", "dilation"):
        require(len(attributes[name]) == spatial, "conv", f"{name} {attributes[name]} needs {spatial} entries")
    if bias:
        require(
            bias[0].shape == weight.shape[:1],
            "conv",
            f"bias {list(bias[0].shape)} does not fit {weight.shape[0]} outputs",
        )
    extents = [
        convolved_extent(
            x.shape[2 + i],
            int(weight.static_shape[2 + i]),
            attributes["stride"][i],
            attributes["padding"][i],
            attributes["dilation"][i],
        )
        for i in range(spatial)
    ]
    require_window("conv", x, extents, weight.shape[2:])
    return x.with_shape((x.shape[0], weight.shape[0], *extents)).with_dtype(dtype)


def _kernel_at(weight: np.ndarray, offset: tuple[int, ...]) -> np.ndarray:
    """The matrices [groups, rows, columns] of a weight [groups, rows, columns, kernel...] at one kernel position."""
    index: tuple[Any, ...] = (slice(None), slice(None), slice(None), *offset)
    return np.asarray(weight[index])


def _conv(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, weight, *bias = inputs
    stride, dilation, groups = attributes["stride"], attributes["dilation"], attributes["groups"]
    padded = np.pad(x, [(0, 0), (0, 0), *attributes["padding"]], constant_values=attributes["filling"])
    window = weight.shape[2:]
    extents = [int(convolved_extent(padded.shape[2 + i], window[i], stride[i], (0, 0), dilation[i])) for i in range(len(window))]
    outputs_per_group = weight.shape[0] // groups
    grouped_weight = weight.reshape(groups, outputs_per_group, *weight.shape[1:])
    total = np.zeros((x.shape[0], groups, outputs_per_group, math.prod(extents)))
    for offset in itertools.product(*(range(size) for size in window)):
        index = tuple(slice(o * d, o * d + (e - 1) * s + 1, s) for o, d, e, s in zip(offset, dilation, extents, stride, strict=True))
        patch = padded[(slice(None), slice(None), *index)].reshape(x.shape[0], groups, weight.shape[1], total.shape[3])
        total += np.matmul(_kernel_at(grouped_weight, offset), patch)
    result = total.reshape(x.shape[0], weight.shape[0], *extents)
    return result + bias[0].reshape(-1, *[1] * len(window)) if bias else result


def _conv_flops(inputs: Sequence[TensorType], attributes: Attributes, outputs: Sequence[TensorType]) -> int:
    return 2 * outputs[0].elements * math.prod(inputs[1].static_shape[1:])


register(
    Op(
        "conv",
        ("x", "weight", "bias?"),
        _infer_conv,
        _summed(_conv),
        _conv_flops,
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "groups": 1, "filling": 0, "dtype": None},
        _CONTRACTION,
        kinds={**_RESULT, "filling": INTEGER},
        doc="cross-correlation of x [N, C, spatial...] with weight [O, C / groups, kernel...], plus bias [O]; padding is a "
        "(low, high) pair for each spatial axis, and holds filling: the zero point of quantised operands",
    )
)


def _infer_conv_transpose(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, weight, *bias = inputs
    _same_dtype("conv_transpose", inputs)
    spatial = x.rank - 2
    groups = attributes["groups"]
    require(
        spatial >= 1 and weight.rank == x.rank,
        "conv_transpose",
        f"operand {list(x.shape)} and weight {list(weight.shape)} need the same rank",
    )
    for name in ("stride", "padding", "dilation", "output_padding"):
        require(len(attributes[name]) == spatial, "conv_transpose", f"{name} {attributes[name]} needs {spatial} entries")
    require(
        not isinstance(weight.shape[0], int) or weight.shape[0] % groups == 0,
        "conv_transpose",
        f"{weight.shape[0]} channels in {groups} groups",
    )
    require(
        x.shape[1] == weight.shape[0],
        "conv_transpose",
        f"{x.shape[1]} channels do not fit a weight of {list(weight.shape)} [in, out / groups, ...]",
    )
    outputs = weight.static_shape[1] * groups
    if bias:
        require(bias[0].shape == (outputs,), "conv_transpose", f"bias {list(bias[0].shape)} does not fit {outputs} outputs")
    extents = [
        (x.shape[2 + i] - 1) * attributes["stride"][i]
        - sum(attributes["padding"][i])
        + attributes["dilation"][i] * (weight.static_shape[2 + i] - 1)
        + attributes["output_padding"][i]
        + 1
        for i in range(spatial)
    ]
    require(
        all(not isinstance(extent, int) or extent >= 1 for extent in extents),
        "conv_transpose",
        f"padding {attributes['padding']} leaves nothing of {list(x.shape)}",
    )
    return x.with_shape((x.shape[0], outputs, *extents))


def _conv_transpose(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, weight, *bias = inputs
    stride, dilation, groups, padding = (
        attributes["stride"],
        attributes["dilation"],
        attributes["groups"],
        attributes["padding"],
    )
    window = weight.shape[2:]
    batch, positions = x.shape[0], x.shape[2:]
    full = [
        (p - 1) * s + d * (w - 1) + o + 1
        for p, s, d, w, o in zip(positions, stride, dilation, window, attributes["output_padding"], strict=True)
    ]
    result = np.zeros((batch, groups * weight.shape[1], *full))
    grouped = x.reshape(batch, groups, x.shape[1] // groups, *positions)
    grouped_weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    if 0 in positions:
        window = (0,) * len(window)
    for offset in itertools.product(*(range(size) for size in window)):
        part = np.einsum("gco,ngc...->ngo...", _kernel_at(grouped_weight, offset), grouped, optimize=True)
        index = tuple(slice(o * d, o * d + (p - 1) * s + 1, s) for o, d, p, s in zip(offset, dilation, positions, stride, strict=True))
        result[(slice(None), slice(None), *index)] += part.reshape(*result.shape[:2], *positions)
    result = result[(slice(None), slice(None), *(slice(low, extent - high) for (low, high), extent in zip(padding, full, strict=True)))]
    return result + bias[0].reshape(-1, *[1] * len(window)) if bias else result


register(
    Op(
        "conv_transpose",
        ("x", "weight", "bias?"),
        _infer_conv_transpose,
        _conv_transpose,
        lambda inputs, attributes, outputs: 2 * inputs[0].elements * math.prod(inputs[1].static_shape[1:]),
        {"stride": REQUIRED, "padding": REQUIRED, "dilation": REQUIRED, "output_padding": REQUIRED, "groups": 1},
        _CONTRACTION,
        doc="transposed convolution of x [N, C, spatial...] with weight [C, O / groups, kernel...], plus bias [O]",
    )
)
