"""Numbers read as other numbers of as many bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import DType, Kind, TensorType
from .attributes import DTYPE
from .definition import REQUIRED, Attributes, Op, Trait, elements_written, register, require


def _infer(inputs: Sequence[TensorType], attributes: Attributes) -> TensorType:
    (x,) = inputs
    source, dtype = attributes["source"], attributes["dtype"]
    require(x.dtype is source, "bitcast", f"the operand is {x.dtype.text}, not {source.text}")
    numbers = all(each.kind in (Kind.INTEGER, Kind.FLOAT) for each in (source, dtype))
    require(numbers and source.bits == dtype.bits, "bitcast", f"{source.text} and {dtype.text} are not numbers of as many bits")
    return x.with_dtype(dtype)


def _reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    source: DType = attributes["source"]
    dtype: DType = attributes["dtype"]
    # Floats come in float64: they are as they are stored only after rounding to their own dtype.
    stored = np.array(inputs[0], order="C").astype(source.numpy)
    return stored.reshape(-1).view(dtype.numpy).reshape(stored.shape)


register(
    Op(
        "bitcast",
        ("x",),
        _infer,
        _reference,
        elements_written,
        {"source": REQUIRED, "dtype": REQUIRED},
        frozenset({Trait.ELEMENTWISE}),
        kinds={"source": DTYPE},
        doc="the bits of x, whose dtype is `source`, read as `dtype`",
    )
)
