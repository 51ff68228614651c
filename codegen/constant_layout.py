"""How a kernel wants a constant stored: in another order, or transformed; and the form of that in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ..ir import Layout
from .sparse_weight import BitmapWeight, PanelWeight
from .winograd import WinogradWeight

ConstantLayout: TypeAlias = Layout | WinogradWeight | PanelWeight | BitmapWeight
"""Gives ``pack(array)`` of a logical array and ``physical_shape(shape)``; equal ones store equal constants alike."""


def constant_layouts_document(layouts: Mapping[int, ConstantLayout]) -> list[list[Any]]:
    """Layouts by input position, as JSON."""
    document: list[list[Any]] = []
    for position, layout in layouts.items():
        if isinstance(layout, WinogradWeight):
            document.append([position, "winograd", layout.outputs, layout.panel])
        elif isinstance(layout, PanelWeight):
            document.append([position, "panels", layout.width, layout.capacity, layout.shares, layout.transposed])
        elif isinstance(layout, BitmapWeight):
            kept = None if layout.kept is None else list(layout.kept)
            document.append([position, "bitmap", layout.rows, layout.lanes, layout.capacity, layout.shares, kept, layout.transposed])
        else:
            document.append([position, list(layout.order), [list(block) for block in layout.blocks]])
    return document


def constant_layouts_of(document: list[list[Any]]) -> dict[int, ConstantLayout]:
    """The inverse of :func:`constant_layouts_document`; ValueError or TypeError for anything else."""
    layouts: dict[int, ConstantLayout] = {}
    for position, kind, *rest in document:
        if kind == "winograd":
            outputs, panel = rest
            layouts[position] = WinogradWeight(int(outputs), int(panel))
        elif kind == "panels":
            width, capacity, shares, transposed = rest
            layouts[position] = PanelWeight(int(width), int(capacity), int(shares), bool(transposed))
        elif kind == "bitmap":
            rows, lanes, capacity, shares, kept, transposed = rest
            pair = None if kept is None else (int(kept[0]), int(kept[1]))
            layouts[position] = BitmapWeight(int(rows), int(lanes), int(capacity), int(shares), pair, bool(transposed))
        else:
            (blocks,) = rest
            layouts[position] = Layout(tuple(kind), tuple((axis, size) for axis, size in blocks))
    return layouts
