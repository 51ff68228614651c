"""How a kernel wants a constant stored: in another order, or transformed; and the form of that in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..ir import Layout
from .widened import WidenedBytes
from .winograd import WinogradWeight

ConstantLayout: TypeAlias = Layout | WinogradWeight | WidenedBytes
"""Gives ``pack(array)`` of a logical array and ``physical_shape(shape)``; equal ones store equal constants alike."""


def constant_layouts_document(layouts: Mapping[int, ConstantLayout]) -> list[list[Any]]:
    """Layouts by input position, as JSON."""
    document: list[list[Any]] = []
    for position, layout in layouts.items():
        if isinstance(layout, WinogradWeight):
            document.append([position, "winograd", layout.outputs, layout.panel])
        elif isinstance(layout, WidenedBytes):
            document.append([position, "widened", *_layout_document(layout.layout)])
        else:
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
        else:
            layouts[position] = _layout_of(kind, *rest)
    return layouts
