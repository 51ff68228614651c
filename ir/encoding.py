"""Encodings: how the elements of a tensor are represented in memory.

A tensor's dtype and shape say which numbers it holds; its encoding says how they are stored, as its layout says in which order.
The dense encoding stores each element as the bits of its dtype. The others are descriptors that types, text form and verifier
know, so that passes can introduce them and templates can ask for them; nothing in this version computes with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ..errors import TypeInferenceError

if TYPE_CHECKING:
    from .types import Dim

Parameter: TypeAlias = "int | float | str"
"""Strings are words (``i8``) or name a constant by digest (``#`` and hexadecimal digits)."""


@dataclass(frozen=True)
class Encoding:
    """The representation of a tensor's elements: a registered kind and its parameters, in the order of the text form."""

    name: str = "dense"
    parameters: tuple[tuple[str, Parameter], ...] = ()

    @property
    def is_dense(self) -> bool:
        return self.name == "dense"

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

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={value}" for key, value in self.parameters)
        return f"{self.name}({inner})" if inner else self.name


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


def _one_of(*words: str) -> Callable[[Parameter], bool]:
    return lambda value: value in words


def _count(value: Parameter) -> bool:
    return type(value) is int and value >= 1


def _axis(value: Parameter) -> bool:
    return type(value) is int and value >= 0


def _integer(value: Parameter) -> bool:
    return type(value) is int


def _digest(value: Parameter) -> bool:
    return isinstance(value, str) and re.fullmatch(r"#[0-9a-f]+", value) is not None


def _scale(value: Parameter) -> bool:
    return _digest(value) or (type(value) is float and 0 < value < float("inf"))


def _need_float(name: str, dtype: str) -> None:
    if dtype not in ("f16", "bf16", "f32", "f64"):
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
    per_axis = _digest(given["scale"])
    if per_axis != ("axis" in given):
        raise TypeInferenceError("encoding affine has an axis exactly when its scale is a constant with one value per index of that axis")
    if "axis" in given:
        _need_axis("affine", given, shape)


def _check_sparse(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    nonzeros, group = given["n"], given["m"]
    assert isinstance(nonzeros, int)
    assert isinstance(group, int)
    if nonzeros > group:
        raise TypeInferenceError(f"encoding nm_sparse keeps n={nonzeros} of m={group} elements: n must not exceed m")
    _need_axis("nm_sparse", given, shape, group)


def _check_matrix(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    if len(shape) < 2:
        raise TypeInferenceError(f"sparse encodings are of weights, which have outputs and inputs, not of rank {len(shape)}")


def _check_block_scaled(given: Mapping[str, Parameter], dtype: str, shape: Sequence[Dim]) -> None:
    _need_float("block_scaled", dtype)
    block = given["block"]
    assert isinstance(block, int)
    _need_axis("block_scaled", given, shape, block)


_AXIS_DOC = "the axis, counted from the front"

ENCODING_KINDS: Mapping[str, EncodingKind] = {
    kind.name: kind
    for kind in (
        EncodingKind("dense", "each element is stored as the bits of its dtype"),
        EncodingKind(
            "affine",
            "integers q that stand for scale * (q - zero_point), per tensor or per index of one axis (Jacob et al. 2018)",
            {
                "storage": EncodingParameter("the stored integers, i8 or u8", _one_of("i8", "u8")),
                "scale": EncodingParameter("a positive float, or the #digest of a constant with one value per index of the axis", _scale),
                "zero_point": EncodingParameter(
                    "an integer, or the #digest of a constant (default 0)", lambda value: _integer(value) or _digest(value), True
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
                "axis": EncodingParameter(_AXIS_DOC, _axis),
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
            },
            _check_matrix,
        ),
        EncodingKind(
            "bitmap",
            "a bit for each element says whether it is stored",
            {"elements": EncodingParameter("the most elements stored, at least 1", _count)},
            _check_matrix,
        ),
        EncodingKind(
            "block_scaled",
            "narrow elements, each block along an axis with a scale of its own (OCP Microscaling Formats 1.0, 2023)",
            {
                "storage": EncodingParameter("i8, i4, e4m3, e5m2 or e2m1", _one_of("i8", "i4", "e4m3", "e5m2", "e2m1")),
                "block": EncodingParameter("elements in a block, at least 1", _count),
                "axis": EncodingParameter(_AXIS_DOC, _axis),
                "scale": EncodingParameter("the dtype of the scales: f32, f16, bf16 or e8m0", _one_of("f32", "f16", "bf16", "e8m0")),
            },
            _check_block_scaled,
        ),
    )
}
"""Every encoding by name."""
