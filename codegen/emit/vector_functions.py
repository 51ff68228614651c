"""Functions of whole vectors in LLVM's language: for instructions that TIR has no expression for.

A kernel names the functions that it calls in an attribute, since only who builds it knows for which processor: :func:`completed` adds
their definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..target import Target
from .llvm_functions import with_functions

_ATTRIBUTE = "mlc_vector_functions"
"""Of a TIR function: the names of what it calls, with numbers of lanes."""
_DEFINED: dict[str, VectorFunction] = {}


@dataclass(frozen=True)
class VectorFunction:
    """A function of a vector that gives a vector of as many elements of TIR dtype ``result``.

    ``define(name, lanes, target)`` are the texts for a processor, by name: its own, under the name that it is called by, and what it
    calls.
    """

    name: str
    result: str
    define: Callable[[str, int, Target], Mapping[str, str]]

    def __post_init__(self) -> None:
        _DEFINED[self.name] = self

    def name_of(self, lanes: int) -> str:
        """What the function of so many lanes is called by."""
        return f"{self.name}_{lanes}"

    def call(self, vector: Any, lanes: int) -> Any:
        """The function of a vector of ``lanes`` elements."""
        return tirx.call_pure_extern(f"{self.result}x{lanes}", self.name_of(lanes), vector)


def marked(function: Any, calls: Iterable[str]) -> Any:
    """``function``, which calls vector functions by these names."""
    names = sorted(calls)
    return function.with_attr(_ATTRIBUTE, names) if names else function


def completed(function: Any, target: Target) -> Any:
    """``function`` together with what it calls."""
    texts: dict[str, str] = {}
    for name in map(str, (function.attrs or {}).get(_ATTRIBUTE, ())):
        stem, _, lanes = name.rpartition("_")
        texts.update(_DEFINED[stem].define(name, int(lanes), target))
    return function.with_body(with_functions(function.body, texts)) if texts else function
