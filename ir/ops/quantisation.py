"""Quantisation: floats as integers that count steps from a zero point (Jacob et al. 2018, "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference").

The way back needs no operation of its own: ``cast``, ``sub`` and ``mul``, which fuse into what reads or makes the integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import DType, TensorType
from .attributes import INTEGER
from .definition import REQUIRED, Attributes, Op, Trait, elements_written, register, require
from .elementwise import broadcast_shapes

_CODES = (DType.INT8, DType.UINT8)


def _infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    x, rate = inputs
    dtype: DType = attributes["dtype"]
    fits = x.dtype.is_float and rate.dtype is x.dtype
    require(fits, "quantise", f"takes floats of one dtype, not {x.dtype.text} and {rate.dtype.text}")
    require(dtype in _CODES, "quantise", f"gives i8 or u8, not {dtype.text}")
    limits = np.iinfo(dtype.numpy)
    zero_point = attributes["zero_point"]
    require(limits.min <= zero_point <= limits.max, "quantise", f"the zero point {zero_point} is no {dtype.text}")
    fits = broadcast_shapes("quantise", x.shape, rate.shape) == x.shape
    require(fits, "quantise", f"rates {list(rate.shape)} do not broadcast to {list(x.shape)}")
    return x.with_dtype(dtype)


def _reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    x, rate = inputs
    limits = np.iinfo(attributes["dtype"].numpy)
    steps = np.rint((x * rate).astype(np.float32)).astype(np.float64) + attributes["zero_point"]
    # NaN becomes the lowest code, as what is too low does.
    bounded = np.where(steps > limits.min, np.minimum(steps, limits.max), limits.min)
    return np.asarray(bounded.astype(attributes["dtype"].numpy))


register(
    Op(
        "quantise",
        ("x", "rate"),
        _infer,
        _reference,
        lambda inputs, attributes, outputs: 4 * elements_written(inputs, attributes, outputs),
        {"zero_point": 0, "dtype": REQUIRED},
        frozenset({Trait.ELEMENTWISE}),
        kinds={"zero_point": INTEGER},
        doc="round(x * rate) + zero_point, limited to what dtype (i8 or u8) holds: x * rate is rounded to f32, then to the nearest "
        "integer, ties to even; rate, steps per unit of x, broadcasts; NaN gives the lowest code",
    )
)
