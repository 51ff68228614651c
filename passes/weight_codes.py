"""Weights as bytes with a scale for each output, in the range that a target's instructions multiply without saturating."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..codegen.instruction_sets import sums_bytes_in_16_bits
from ..codegen.target import Target
from ..ir import DENSE, ArrayConstant, Encoding, Node, TensorType, scheme_of
from ..ir.encodings import Affine
from ..ir.encodings.scheme import CODES, SCALES
from ..ir.short_sums import short_sums, with_short_sums

_LARGEST = (127, 106, 88, 73, 61, 51, 42)
"""Codes that the largest number of an output may get, where sums limit them."""
_INPUTS = 8
"""Of two words, which a sum of 16 bits is over."""
_SAMPLED = 16
"""Pairs of words by which the scale of an output is chosen."""


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
        return np.asarray(self.codes.astype(np.float32) * _along(self.scales, self.codes), np.float32)


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
    axes = tuple(range(1, array.ndim))
    largest = np.abs(array).max(axis=axes, initial=0)
    largest = np.where(largest > 0, largest, _LARGEST[0]).astype(np.float32)
    sample = _sample(array)
    errors = []
    for most in _LARGEST:
        scales = largest / np.float32(most)
        stood_for = WeightCodes(_codes(sample, scales, encoding), scales, encoding).numbers
        errors.append(np.square(stood_for - sample).sum(axis=axes))
    chosen = np.asarray(_LARGEST, np.float32)[np.argmin(errors, axis=0)]
    scales = largest / chosen
    return WeightCodes(_codes(array, scales, encoding), scales, encoding)


def _codes(array: np.ndarray, scales: np.ndarray, encoding: Encoding) -> np.ndarray:
    codes = np.rint(array / _along(scales, array)).astype(np.int8)
    return with_short_sums(codes, encoding)


def _along(scales: np.ndarray, array: np.ndarray) -> np.ndarray:
    return scales.reshape(-1, *[1] * (array.ndim - 1))


def _sample(array: np.ndarray) -> np.ndarray:
    """Some inputs of ``array``, by pairs of words, evenly spread."""
    pairs = array.shape[1] // _INPUTS
    if pairs <= _SAMPLED:
        return array
    first = np.linspace(0, pairs - 1, _SAMPLED).astype(np.int64) * _INPUTS
    return np.ascontiguousarray(array[:, (first[:, None] + np.arange(_INPUTS)).reshape(-1)])
