"""Which function converts which ATen operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from torch._ops import OpOverload

from ..ir import Value

Result: TypeAlias = "Value | Sequence[Value | None]"
"""One value, or one for each result of the operation; None for a result that mlc does not compute."""

Converter: TypeAlias = Callable[..., Result]
"""``convert(conversion, *arguments, **keywords)``: arguments as in the operation's schema, values instead of tensors."""

_AnyConverter = TypeVar("_AnyConverter", bound=Callable[..., Any])

_CONVERTERS: dict[OpOverload, Converter] = {}


def entering(table: dict[Any, Any], keys: Sequence[Any], what: str = "") -> Callable[[_AnyConverter], _AnyConverter]:
    """A decorator that enters a converter into ``table`` under each of ``keys``; ValueError for a key that has one."""

    def register(converter: _AnyConverter) -> _AnyConverter:
        for key in keys:
            if key in table:
                raise ValueError(f"{key} has two converters{what}")
            table[key] = converter
        return converter

    return register


def converts(*operations: OpOverload) -> Callable[[_AnyConverter], _AnyConverter]:
    """Registers the decorated function as the converter of ``operations``."""
    return entering(_CONVERTERS, operations)


_NAMED: dict[str, Converter] = {}


def converts_named(*names: str) -> Callable[[_AnyConverter], _AnyConverter]:
    """As :func:`converts`, for operations of libraries that need not be installed: by names such as ``library.operation.overload``."""
    return entering(_NAMED, names)


def converter_of(target: Any) -> Converter | None:
    """The converter of what an fx node calls, if there is one."""
    return _CONVERTERS.get(target) or (_NAMED.get(str(target)) if isinstance(target, OpOverload) else None)


def supported() -> frozenset[OpOverload]:
    """Every operation that has a converter."""
    return frozenset(_CONVERTERS)
