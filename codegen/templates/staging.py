"""Copies of operands in the workspace, in the order in which a register tile reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...ir import Dim
from ..emit import PARALLEL, SERIAL, VECTORIZED, Emitter, Expr


def copy_row(
    emitter: Emitter, lanes: int, buffer: Any, offset: Expr, count: int, element: Callable[[Expr], Expr], distance: int = 1
) -> None:
    """``buffer[offset + i * distance] = element(i)`` for i < ``count``, in vectors of ``lanes``."""
    whole, rest = divmod(count, lanes)
    if whole:
        with emitter.loop(whole, name="vector") as vector, emitter.loop(lanes, VECTORIZED, "lane") as lane:
            place = vector * lanes + lane
            emitter.store(buffer, element(place), offset + place * distance)
    if rest:
        with emitter.loop(rest, VECTORIZED, "lane") as lane:
            place = whole * lanes + lane
            emitter.store(buffer, element(place), offset + place * distance)


def clear_row(emitter: Emitter, lanes: int, buffer: Any, offset: Expr, count: int, filling: int = 0) -> None:
    """``buffer[offset + i] = filling`` for i < ``count``."""
    copy_row(emitter, lanes, buffer, offset, count, lambda place: tirx.const(filling, str(buffer.dtype)))


def loop_kind(threads: int, count: Dim) -> Any:
    """The kind of an outermost loop over ``count`` independent items."""
    return PARALLEL if threads > 1 and count != 1 else SERIAL
