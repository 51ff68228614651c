"""Types of the C extension (``runtime/native``)."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypeAlias

ABI_VERSION: int
ALIGNMENT: int

SizeTuple: TypeAlias = tuple[int, ...]
"""A size that depends on symbols: pairs of kind and value, one after the other (see ``sizes.h``)."""

SpecTuple: TypeAlias = tuple[str, int, int, tuple[int | SizeTuple, ...]]
"""Name, DLPack type code, bits, shape."""

SymbolTuple: TypeAlias = tuple[int, int, int, int, int, int]
"""Input, axis, factor, offset, lower bound, upper bound (-1: none)."""

Argument: TypeAlias = int | tuple[Any]
"""Number of an input, or the value that the argument must equal."""

Plan: TypeAlias = tuple[tuple[Argument, ...], tuple[str, ...], tuple[Argument, ...]]
"""Positional arguments, names of keyword arguments, keyword arguments."""

class Buffer:
    def __new__(cls, nbytes: int) -> Buffer: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Guard:
    def __new__(cls) -> Guard: ...
    def __enter__(self) -> Guard: ...
    def __exit__(self, *error: object) -> None: ...

class Library:
    def __new__(cls, path: str | PathLike[str]) -> Library: ...

class Runner:
    threads: int
    def __new__(
        cls,
        library: Library,
        entry: str,
        inputs: tuple[SpecTuple, ...],
        outputs: tuple[SpecTuple, ...],
        constants: object,
        arena_bytes: int,
        threads: int,
        calls: int,
        release_lock: bool,
        plan: Plan | None,
        output: str | Callable[[list[Any]], Any],
        states: tuple[int, ...],
        state_owner: object,
        guard: Guard | None,
        mutated: tuple[int, ...],
        symbols: tuple[SymbolTuple, ...] = (),
        slots: tuple[SizeTuple, ...] = (),
    ) -> Runner: ...
    def leaves(self, *inputs: object) -> Any: ...
    def run(self, input_addresses: tuple[int, ...], output_addresses: tuple[int, ...], symbols: tuple[int, ...] = ()) -> None: ...
    def profile(self, input_addresses: tuple[int, ...], output_addresses: tuple[int, ...], symbols: tuple[int, ...] = ()) -> list[int]: ...

class Dispatch:
    def __new__(cls, fallback: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> Dispatch: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def add(self, runner: Runner) -> None: ...
    def reset(self) -> None: ...
    def watch(self, entries: Sequence[tuple[dict[str, Any], str, int]]) -> None: ...
    def changed(self) -> bool: ...

def adopt_torch(
    tensor: type, parameter: type, empty_strided: object, is_grad_enabled: Callable[[], bool], dtypes: dict[str, Any], exchange: object
) -> None: ...
def adopt_numpy(array: type, dtypes: dict[str, Any]) -> None: ...
def available_cpus() -> int: ...
def trim() -> int: ...
