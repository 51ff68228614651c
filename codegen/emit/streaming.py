"""Stores past the caches, for results that no cache can keep.

An ordinary store first reads the line that it writes. A non-temporal one does not, and evicts nothing. TIR knows no such stores, so that
they are functions in LLVM's language, which the code generator inlines. A store of this kind is seen by other threads once the thread
that made it has run an atomic operation with a lock, as it does at the end of every share of a parallel loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tvm import tirx

from .emitter import Expr, index, ramp


def stream_store(buffer: Any, first: Expr, line: Any, lanes: int) -> Any:
    """The statement that stores the fp32 vector ``line`` at ``first``, a multiple of ``lanes``, of an aligned ``buffer``."""
    place = tirx.address_of(tirx.BufferLoad(buffer, [first]))
    return tirx.Evaluate(tirx.call_extern("void", _name(lanes), place, tirx.BufferLoad(line, [ramp(index(0), lanes)])))


def stream_functions(widths: Iterable[int]) -> dict[str, str]:
    """The functions for :func:`stream_store` of these numbers of lanes, by name."""
    return {_name(lanes): _function(lanes) for lanes in widths}


def _name(lanes: int) -> str:
    return f"mlc_stream_f32x{lanes}"


def _function(lanes: int) -> str:
    return (
        f"define internal void @{_name(lanes)}(ptr %place, <{lanes} x float> %value) alwaysinline nounwind {{\n"
        f"  store <{lanes} x float> %value, ptr %place, align {min(4 * lanes, 64)}, !nontemporal !0\n"
        "  ret void\n}\n"
    )
