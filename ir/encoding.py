"""Encodings: how the elements of a tensor are represented in memory.

A tensor's dtype and shape say which numbers it holds; its encoding says how they are stored, as its layout says in which order.
The dense encoding stores each element as the bits of its dtype. The others are descriptors that types, text form and verifier
know: a constant of such a type has the numbers that :mod:`mlc.ir.encodings` decodes its parts to, whoever reads it. A template that
knows the encoding asks for the parts; to all others the constant is the dense array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from ..errors import TypeInferenceError

if TYPE_CHECKING:
    from .types import Dim

Parameter: TypeAlias = "int | float | str"
"""Strings are words (``i8``) or name a constant by digest (``#`` and hexadecimal digits)."""

SPARSE = ("block_sparse", "bitmap", "nm_sparse")
"""The encodings that leave out zeros."""
VALUES = "values"
"""What the text form calls the encoding of the numbers that a sparse encoding stores."""
STORED = "stored"
"""The word for numbers that are not in the type but parts of the constant that has it."""


@dataclass(frozen=True)
class Encoding:
    """The representation of a tensor's elements: a registered kind and its parameters, in the order of the text form.

    ``inner``: the encoding, one of codes, of the numbers that a sparse encoding stores; None: they are stored as they are.
    """

    name: str = "dense"
    parameters: tuple[tuple[str, Parameter], ...] = ()
    inner: Encoding | None = None

    @property
    def is_dense(self) -> bool:
        return self.name == "dense"

    @property
    def is_sparse(self) -> bool:
        """Whether zeros are left out."""
        return self.name in SPARSE

    @property
    def values(self) -> Encoding:
        """How the numbers that are stored are represented: of an encoding that leaves out zeros, that of the others; else itself."""
        if not self.is_sparse:
            return self
        return DENSE if self.inner is None else self.inner

    def with_values(self, values: Encoding) -> Encoding:
        """This sparse encoding, of numbers in another one."""
        return replace(self, inner=None if values.is_dense else values)

    def check(self, dtype: str, shape: Sequence[Dim]) -> None:
        """TypeInferenceError unless this encoding can represent a tensor of ``dtype`` (text form) and ``shape``."""
        if self == DENSE:
            return
        kind = ENCODING_KINDS.get(self.name)
        if kind is None:
            raise TypeInferenceError(f"there is no encoding '{self.name}' (known: {', '.join(ENCODING_KINDS)})")
        given = dict(self.parameters)
        if len(given) != len(self.parameters):
            raise TypeInferenceError(f"encoding {self} gives a parameter twice")
        for name in given:
            if name not in kind.parameters:
                raise TypeInferenceError(f"encoding {self.name} has no parameter '{name}' (it has: {', '.join(kind.parameters)})")
        for name, parameter in kind.parameters.items():
            if name not in given:
                if not parameter.optional:
                    raise TypeInferenceError(f"encoding {self.name} needs the parameter '{name}': {parameter.doc}")
            elif not parameter.accept(given[name]):
                raise TypeInferenceError(f"'{given[name]}' does not fit the parameter '{name}' of encoding {self.name}: {parameter.doc}")
        kind.check(given, dtype, shape)
        if self.inner is not None:
            if not self.is_sparse or self.inner.is_sparse or self.inner.is_dense:
                raise TypeInferenceError(
                    f"encoding {self}: '{VALUES}' is the encoding of codes that a sparse one of {', '.join(SPARSE)} stores"
                )
            self.inner.check(dtype, shape)

    def __str__(self) -> str:
        words = [f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={value}" for key, value in self.parameters]
        if self.inner is not None:
            words.append(f"{VALUES}={self.inner}")
        return f"{self.name}({', '.join(words)})" if words else self.name


DENSE = Encoding()


@dataclass(frozen=True)
class EncodingParameter:
    """What one parameter of an encoding means and which values fit."""

    doc: str
    accept: Callable[[Parameter], bool]
    optional: bool = False


@dataclass(frozen=True)
class EncodingKind:
    """A registered encoding: its parameters, and what it demands of dtype and shape."""

    name: str
    doc: str
    parameters: Mapping[str, EncodingParameter] = field(default_factory=dict)
    check: Callable[[Mapping[str, Parameter], str, Sequence[Dim]], None] = lambda given, dtype, shape: None


def _one_of(*words: Parameter) -> Callable[[Parameter], bool]:
    return lambda value: any(type(value) is type(word) and value == word for word in words)


def _count(value: Parameter) -> bool:
    return type(value) is int and value >= 1


def _axis(value: Parameter) -> bool:
    return type(value) is int and value >= 0


def _integer(value: Parameter) -> bool:
    return type(value) is int


def _digest(value: Parameter) -> bool:
    return isinstance(value, str) and re.fullmatch(r"#[0-9a-f]+", value) is not None


def _scale(value: Parameter) -> bool:
    return _digest(value) or value == STORED or (type(value) is float and 0 < value < float("inf"))


def _need_float(name: str, dtype: str) -> None:
    if dtype not in ("f8e4m3", "f8e5m2", "f16", "bf16", "f32", "f64"):
        raise TypeInferenceError(f"encoding {name} represents floats, the tensor holds {dtype}")


def _need_axis(name: str, given: Mapping[str, Parameter], shape: Sequence[Dim], multiple: int = 1) -> None:
    axis = given["axis"]
    assert isinstance(axis, int)
    if axis >= len(shape):
        raise TypeInferenceError(f"axis {axis} of encoding {name} is out of range for rank {len(shape)}")
    extent = shape[axis]
    if isinstance(extent, int) and extent % multiple:
        raise TypeInferenceError(f"encoding {name} needs a multiple of {multiple} elements along axis {axis}, the shape has {extent}")


def _check_affine(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    _need_float("affine", dtype)
    scale, zero_point = given["scale"], given.get("zero_point", 0)
    if (_digest(scale) and "axis" not in given) or (isinstance(scale, float) and "axis" in given):
        raise TypeInferenceError("encoding affine has an axis when its scale is a constant with one value per index of it, or stored")
    if zero_point == STORED and scale != STORED:
        raise TypeInferenceError("the zero points of encoding affine are stored only where its scales are")
    if "axis" in given:
        _need_axis("affine", given, shape)


def _check_along_axis(name: str) -> Callable[[Mapping[str, Parameter], str, Sequence[Dim]], None]:
    """The check of an encoding of floats that has an axis, of any extent, or may have one."""

    def check(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
        _need_float(name, dtype)
        if "axis" in given:
            _need_axis(name, given, shape)

    return check


def _check_sparse(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    nonzeros, group = given["n"], given["m"]
    assert isinstance(nonzeros, int)
    assert isinstance(group, int)
    if nonzeros > group:
        raise TypeInferenceError(f"encoding nm_sparse keeps n={nonzeros} of m={group} elements: n must not exceed m")
    _need_axis("nm_sparse", given, shape, group)


def _check_block_sparse(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    _check_matrix(given, dtype, shape)
    _need_axis("block_sparse", given, shape)


def _check_matrix(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    if len(shape) < 2:
        raise TypeInferenceError(f"sparse encodings are of weights, which have outputs and inputs, not of rank {len(shape)}")


_AXIS_DOC = "the axis, counted from the front"
_AXIS = EncodingParameter(_AXIS_DOC, _axis)
_SCALE_DTYPE = EncodingParameter("the dtype of the scales: f32, f16 or bf16", _one_of("f32", "f16", "bf16"))
_GROUP = EncodingParameter(
    "elements that share a scale: 32, 64, 96 or 128; the last group of an axis may be shorter", _one_of(32, 64, 96, 128)
)

ENCODING_KINDS: Mapping[str, EncodingKind] = {
    kind.name: kind
    for kind in (
        EncodingKind("dense", "each element is stored as the bits of its dtype"),
        EncodingKind(
            "affine",
            "integers q that stand for scale * (q - zero_point), per tensor or per index of one axis (Jacob et al. 2018)",
            {
                "storage": EncodingParameter("the stored integers, i8 or u8", _one_of("i8", "u8")),
                "scale": EncodingParameter(
                    "a positive float, the #digest of a constant with one value per index of the axis, or stored: part of the constant",
                    _scale,
                ),
                "zero_point": EncodingParameter(
                    "an integer, the #digest of a constant, or stored (default 0)",
                    lambda value: _integer(value) or _digest(value) or value == STORED,
                    True,
                ),
                "axis": EncodingParameter(_AXIS_DOC, _axis, True),
            },
            _check_affine,
        ),
        EncodingKind(
            "nm_sparse",
            "of every m consecutive elements along an axis at most n are not zero; stored are those n and their positions "
            "(Mishra et al. 2021)",
            {
                "n": EncodingParameter("elements kept, at least 1", _count),
                "m": EncodingParameter("elements in a group, at least 1", _count),
                "axis": _AXIS,
            },
            _check_sparse,
        ),
        EncodingKind(
            "block_sparse",
            "of every width consecutive indices along the outputs only the inputs at which some element is not zero are stored, with "
            "their places; width 1 is CSR, more are blocks of width x 1",
            {
                "width": EncodingParameter("outputs in a panel, at least 1", _count),
                "entries": EncodingParameter("the most inputs stored, of all panels together, at least 1", _count),
                "axis": EncodingParameter("the axis of the outputs, counted from the front", _axis),
            },
            _check_block_sparse,
        ),
        EncodingKind(
            "bitmap",
            "a bit for each element says whether it is stored",
            {"elements": EncodingParameter("the most elements stored, at least 1", _count)},
            _check_matrix,
        ),
        EncodingKind(
            "grouped",
            "integers of 2, 3, 4 or 8 bits that stand for scale * (q - zero_point), each group along an axis with a scale of its own",
            {
                "storage": EncodingParameter(
                    "i2, i3, i4, i8 (two's complement), u2, u3, u4 or u8",
                    _one_of("i2", "i3", "i4", "i8", "u2", "u3", "u4", "u8"),
                ),
                "group": _GROUP,
                "axis": _AXIS,
                "scale": _SCALE_DTYPE,
                "zero_point": EncodingParameter("stored: one integer for each group (default: 0)", _one_of(STORED), True),
            },
            _check_along_axis("grouped"),
        ),
        EncodingKind(
            "block_scaled",
            "narrow elements, each block along an axis with a power of two as scale (OCP Microscaling Formats 1.0, 2023)",
            {
                "storage": EncodingParameter(
                    "e4m3, e5m2 (MXFP8), e2m3, e3m2 (MXFP6), e2m1 (MXFP4) or i8 (MXINT8: 64ths)",
                    _one_of("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "i8"),
                ),
                "block": EncodingParameter("elements in a block, at least 1 (MX: 32); the last one of an axis may be shorter", _count),
                "axis": _AXIS,
            },
            _check_along_axis("block_scaled"),
        ),
        EncodingKind(
            "codebook",
            "indices into a table of 2**bits numbers, which each group along an axis multiplies by a scale of its own",
            {
                "bits": EncodingParameter("bits of an index, 3 or 4", _one_of(3, 4)),
                "group": _GROUP,
                "axis": _AXIS,
                "scale": _SCALE_DTYPE,
            },
            _check_along_axis("codebook"),
        ),
        EncodingKind(
            "ternary",
            "-1, 0 or 1 times a scale, per tensor or per index of one axis (Ma et al., The Era of 1-bit LLMs, 2024)",
            {"scale": _SCALE_DTYPE, "axis": EncodingParameter(_AXIS_DOC, _axis, True)},
            _check_along_axis("ternary"),
        ),
    )
}
"""Every encoding by name."""
