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

_AnyConverter = TypeVar("_AnyConverter", bound=Converter)

_CONVERTERS: dict[OpOverload, Converter] = {}


def converts(*operations: OpOverload) -> Callable[[_AnyConverter], _AnyConverter]:
    """Registers the decorated function as the converter of ``operations``."""

    def register(converter: _AnyConverter) -> _AnyConverter:
        for operation in operations:
            if operation in _CONVERTERS:
                raise ValueError(f"{operation} has two converters")
            _CONVERTERS[operation] = converter
        return converter

    return register


def converter_of(target: Any) -> Converter | None:
    """The converter of what an fx node calls, if there is one."""
    return _CONVERTERS.get(target)


def supported() -> frozenset[OpOverload]:
    """Every operation that has a converter."""
    return frozenset(_CONVERTERS)
