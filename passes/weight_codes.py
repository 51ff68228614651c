"""Weights as bytes with a scale for each output, in the range that a target's instructions multiply without saturating."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..codegen.instruction_sets import sums_bytes_in_16_bits
from ..codegen.target import Target
from ..ir import DENSE, ArrayConstant, Encoding, Node, TensorType, scheme_of
from ..ir.encodings import Affine
from ..ir.encodings.scheme import CODES, SCALES
from ..ir.short_sums import LIMIT, short_sums, sums_of, with_short_sums
from .calibration import Observation

_LARGEST = tuple(np.geomspace(127, 40, 12))
"""Codes that the largest number of an output may get, where sums limit them."""
_INPUTS = 8
"""Of two words, which a sum of 16 bits is over."""


@dataclass(frozen=True)
class WeightCodes:
    """Codes (int8), what a step stands for in each output (float32), and how the codes are encoded."""

    codes: np.ndarray
    scales: np.ndarray
    encoding: Encoding

    @property
    def constant(self) -> ArrayConstant:
        return ArrayConstant(self.codes)

    @property
    def type(self) -> TensorType:
        return self.constant.type.with_encoding(self.encoding)

    @property
    def numbers(self) -> np.ndarray:
        """What the codes stand for."""
        return np.asarray(self.codes.astype(np.float32) * self.scales.reshape(-1, *[1] * (self.codes.ndim - 1)), np.float32)


def encoding_of_codes(node: Node, target: Target) -> Encoding:
    """How the codes of the weight of a ``linear`` or ``conv`` are encoded: so that products of neighbours fit 16 bits where they are summed
    in 16 bits, else densely."""
    if not sums_bytes_in_16_bits(target) or node.attributes.get("groups", 1) != 1:
        return DENSE
    inputs = node.inputs[1].tensor.static_shape[1]
    # Where a window moves over words, a pair of them must be of one pixel.
    return short_sums(1 if node.op == "conv" and inputs % _INPUTS else 2)


def weight_codes(array: np.ndarray, encoding: Encoding) -> WeightCodes:
    """The codes of a finite weight [outputs, inputs, ...]: by its largest number in each output, or where sums limit them with the scale of
    those tried that gives the least squared error."""
    if encoding.is_dense:
        parts = scheme_of(Affine("i8", 0).encoding).quantise(array)
        return WeightCodes(parts[CODES], parts[SCALES], encoding)
    array = np.asarray(array, np.float32)
    scales = _scales(array, encoding)
    codes = np.rint(array / scales.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
    return WeightCodes(with_short_sums(codes, encoding), scales, encoding)


def _scales(array: np.ndarray, encoding: Encoding) -> np.ndarray:
    """For each output the step, of those tried, with the least squared error: of rounding, a twelfth of its square in each number, and of
    making numbers smaller that add up to too much."""
    largest = np.abs(array).max(axis=tuple(range(1, array.ndim)), initial=0)
    candidates = np.where(largest > 0, largest, 1) / np.asarray(_LARGEST, np.float32)[:, None]
    errors = np.square(candidates, dtype=np.float64) * (math.prod(array.shape[1:]) / 12)
    for sign in (1, -1):
        totals, squares = sums_of(np.maximum(array * np.float32(sign), 0), encoding)
        # Few sums are too large, and those that are for some step are so for the smallest.
        output, place = np.nonzero(totals > LIMIT * candidates.min(axis=0)[:, None])
        total, square = totals[output, place], squares[output, place]
        for step, error in zip(candidates, errors, strict=True):
            lost = np.maximum(1 - LIMIT * step[output] / total, 0)
            error += np.bincount(output, square * np.square(lost), array.shape[0])
    return np.asarray(np.take_along_axis(candidates, errors.argmin(axis=0)[None], 0)[0], np.float32)


def lost_by_rounding(node: Node, rounding: np.ndarray, observed: Observation) -> np.ndarray:
    """What each output of ``node`` lacks on average, since ``rounding`` is missing of its weight, where inputs are as ``observed``.

    What activations have in common, most of all rectified ones, would otherwise add up over the layers (Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction", 2019). Padding is taken for data.
    """
    means = observed.means[1 if node.op == "conv" else node.inputs[0].tensor.rank - 1]
    by_input = rounding.astype(np.float64).sum(axis=tuple(np.arange(2, rounding.ndim)))
    groups = node.attributes.get("groups", 1)
    assert isinstance(groups, int)
    outputs = by_input.reshape(groups, -1, by_input.shape[1])
    return np.asarray(np.einsum("goi,gi->go", outputs, means.reshape(groups, -1)).reshape(-1))
