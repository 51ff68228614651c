"""How a kernel wants a constant stored: in another order, transformed, or in a form of its own; and what of that stands in files."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

import numpy as np

from ..ir import Constant, Layout
from .short_bytes import ShortBytes
from .widened import WidenedBytes
from .winograd import WinogradWeight


class ConstantForm(ABC):
    """Bytes of a kernel's own making, for constants that it does not read densely: encoded ones, sparse ones.

    A frozen dataclass of integers, texts and other JSON values, so that equal ones store equal constants alike; a ``kind`` is registered
    once, by :func:`register_form`.
    """

    kind: ClassVar[str]

    @abstractmethod
    def nbytes(self, constant: Constant) -> int:
        """The size of what :meth:`pack` gives, at best without reading the data."""

    @abstractmethod
    def pack(self, constant: Constant) -> np.ndarray:
        """The bytes that the kernel reads, of whatever dtype. The address of the first is a multiple of 64."""

    @abstractmethod
    def document(self) -> list[Any]:
        """The fields, as JSON."""

    @classmethod
    @abstractmethod
    def of(cls, document: list[Any]) -> Self:
        """The inverse of :meth:`document`; ValueError or TypeError for anything else."""


DenseLayout: TypeAlias = Layout | WinogradWeight | WidenedBytes | ShortBytes
"""Stores the dense array: ``pack(array)``, of ``physical_shape(shape)`` elements of its dtype."""

ConstantLayout: TypeAlias = DenseLayout | ConstantForm

_FORMS: dict[str, type[ConstantForm]] = {}
_DEFINED_IN = {"panels": "weight_packing", "sparse_panels": "sparse_weight", "bitmap": "sparse_weight", "selected": "selected_weight"}
"""The modules of forms that a file may name before anything else has imported them, as in a process that measures kernels."""
_FormType = TypeVar("_FormType", bound=type[ConstantForm])


def register_form(form: _FormType) -> _FormType:
    """Class decorator: makes a form readable from files."""
    if form.kind in _FORMS:
        raise ValueError(f"constant form '{form.kind}' is defined twice")
    _FORMS[form.kind] = form
    return form


def stored(constant: Constant, layout: ConstantLayout) -> np.ndarray:
    """``constant`` as ``layout`` stores it; an encoded one decoded, unless the layout is a form."""
    return layout.pack(constant) if isinstance(layout, ConstantForm) else layout.pack(constant.array())


def stored_bytes(constant: Constant, layout: ConstantLayout) -> int:
    """The size of :func:`stored`."""
    if isinstance(layout, ConstantForm):
        return layout.nbytes(constant)
    return math.prod(layout.physical_shape(constant.type.static_shape)) * constant.type.dtype.nbytes


def constant_layouts_document(layouts: Mapping[int, ConstantLayout]) -> list[list[Any]]:
    """Layouts by input position, as JSON."""
    document: list[list[Any]] = []
    for position, layout in layouts.items():
        match layout:
            case WinogradWeight():
                document.append([position, "winograd", layout.outputs, layout.panel])
            case WidenedBytes():
                document.append([position, "widened", *_layout_document(layout.layout)])
            case ShortBytes():
                document.append([position, "short_sums", layout.words, *_layout_document(layout.layout)])
            case ConstantForm():
                document.append([position, layout.kind, *layout.document()])
            case Layout():
                document.append([position, *_layout_document(layout)])
    return document


def _layout_document(layout: Layout) -> list[Any]:
    return [list(layout.order), [list(block) for block in layout.blocks]]


def _layout_of(order: list[int], blocks: list[tuple[int, int]]) -> Layout:
    return Layout(tuple(order), tuple((axis, size) for axis, size in blocks))


def constant_layouts_of(document: list[list[Any]]) -> dict[int, ConstantLayout]:
    """The inverse of :func:`constant_layouts_document`; ValueError or TypeError for anything else."""
    layouts: dict[int, ConstantLayout] = {}
    for position, kind, *rest in document:
        if kind == "winograd":
            outputs, panel = rest
            layouts[position] = WinogradWeight(int(outputs), int(panel))
        elif kind == "widened":
            layouts[position] = WidenedBytes(_layout_of(*rest))
        elif kind == "short_sums":
            words, *layout = rest
            layouts[position] = ShortBytes(_layout_of(*layout), int(words))
        elif isinstance(kind, str):
            if kind in _DEFINED_IN:
                importlib.import_module(f".{_DEFINED_IN[kind]}", __package__)
            if kind not in _FORMS:
                raise ValueError(f"no constant form is called '{kind}' (known: {', '.join(_FORMS) or 'none'})")
            layouts[position] = _FORMS[kind].of(rest)
        else:
            layouts[position] = _layout_of(kind, *rest)
    return layouts
