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


_NAMED: dict[str, Converter] = {}


def converts_named(*names: str) -> Callable[[_AnyConverter], _AnyConverter]:
    """As :func:`converts`, for operations of libraries that need not be installed: by names such as ``library.operation.overload``."""

    def register(converter: _AnyConverter) -> _AnyConverter:
        for name in names:
            if name in _NAMED:
                raise ValueError(f"{name} has two converters")
            _NAMED[name] = converter
        return converter

    return register


def converter_of(target: Any) -> Converter | None:
    """The converter of what an fx node calls, if there is one."""
    return _CONVERTERS.get(target) or (_NAMED.get(str(target)) if isinstance(target, OpOverload) else None)


def supported() -> frozenset[OpOverload]:
    """Every operation that has a converter."""
    return frozenset(_CONVERTERS)
