"""Arguments that are objects holding tensors: the caches of Hugging Face's models.

torch.export knows tensors in containers. A cache is an object whose methods read and write its tensors; it is passed through the export
as its tensors and a description of the rest (:class:`Outline`), and rebuilt inside, where the model updates the tensors in place. What a
call does to the object beyond that cannot be part of a program, and is refused.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ..errors import ExportError

_CACHES = "transformers.cache_utils"


@functools.cache
def _classes() -> tuple[type, ...]:
    """The classes of holders and of what they consist of. To be asked once their library is loaded."""
    names = ("Cache", "CacheLayerMixin", "LinearAttentionCacheLayerMixin")
    return tuple(getattr(sys.modules[_CACHES], name) for name in names if hasattr(sys.modules[_CACHES], name))


def is_holder(value: Any) -> bool:
    """Whether an argument is an object that holds tensors."""
    return _CACHES in sys.modules and isinstance(value, _classes())


@dataclass(frozen=True)
class Outline:
    """What a holder consists of besides tensors. ``kind`` is 'tensor', 'value', 'opaque', 'list', 'tuple', 'dict' or 'object'; ``value`` is
    the plain or opaque value, or the class of an object."""

    kind: str
    value: Any = None
    keys: tuple[Any, ...] = ()
    items: tuple[Outline, ...] = ()

    def build(self, tensors: Iterator[Any]) -> Any:
        """The object that this describes, with ``tensors`` in order."""
        match self.kind:
            case "tensor":
                return next(tensors)
            case "value" | "opaque":
                return self.value
        items = [item.build(tensors) for item in self.items]
        if self.kind in ("list", "tuple"):
            return items if self.kind == "list" else tuple(items)
        named = dict(zip(self.keys, items, strict=True))
        if self.kind == "dict":
            return named
        made = self.value.__new__(self.value)
        vars(made).update(named)
        return made


def outline(value: Any) -> tuple[Outline, list[torch.Tensor]]:
    """The outline of a holder, and its tensors in order."""
    tensors: list[torch.Tensor] = []
    return _outline(value, tensors, 0), tensors


def _outline(value: Any, tensors: list[torch.Tensor], depth: int) -> Outline:
    if depth > 32:
        raise ExportError("an argument holds objects within objects without end; pass its tensors instead")
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Outline("tensor")
    if value is None or isinstance(value, bool | int | float | str):
        return Outline("value", value)
    if type(value) in (list, tuple):
        return Outline(type(value).__name__, None, (), tuple(_outline(item, tensors, depth + 1) for item in value))
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return Outline("dict", None, tuple(value), tuple(_outline(item, tensors, depth + 1) for item in value.values()))
    if is_holder(value):
        fields = vars(value)
        return Outline("object", type(value), tuple(fields), tuple(_outline(item, tensors, depth + 1) for item in fields.values()))
    return Outline("opaque", value)


class Opened:
    """A holder on its way through torch.export: a pytree of its tensors."""

    def __init__(self, holder: Any) -> None:
        self.holder = holder


@dataclass(frozen=True)
class Returned:
    """Stands for the holder number ``index`` of the arguments in the result."""

    index: int


def _rebuild(tensors: Any, context: Any) -> Opened:
    return Opened(context.build(iter(tensors)))


def _flatten(opened: Opened) -> tuple[list[torch.Tensor], Outline]:
    found, tensors = outline(opened.holder)
    return tensors, found


def _flatten_with_keys(opened: Opened) -> tuple[list[tuple[Any, torch.Tensor]], Outline]:
    tensors, found = _flatten(opened)
    return [(pytree.SequenceKey(index), tensor) for index, tensor in enumerate(tensors)], found


pytree.register_pytree_node(
    Opened, _flatten, _rebuild, serialized_type_name="mlc.frontend.holders.Opened", flatten_with_keys_fn=_flatten_with_keys
)
pytree.register_pytree_node(
    Returned,
    lambda returned: ([], returned.index),
    lambda _, index: Returned(index),
    serialized_type_name="mlc.frontend.holders.Returned",
    flatten_with_keys_fn=lambda returned: ([], returned.index),
)


def open_holders(arguments: Any) -> Any:
    """``arguments`` with every holder opened."""
    return pytree.tree_map(lambda value: Opened(value) if is_holder(value) else value, arguments, is_leaf=is_holder)


def has_holders(arguments: Any) -> bool:
    """Whether a holder is among ``arguments``, at any depth."""
    return any(is_holder(leaf) for leaf in pytree.tree_leaves(arguments, is_leaf=is_holder))


class Opening(nn.Module):
    """A module that takes its holders opened, and yields :class:`Returned` where the inner one yields a holder that it was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.train(inner.training)
        # torch.export binds arguments by the signature of forward.
        forward = functools.partial(_forward, inner)
        forward.__signature__ = inspect.signature(inner.forward)  # type: ignore[attr-defined]
        self.forward = forward


def _forward(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    opened: list[Any] = []

    def close(value: Any) -> Any:
        if isinstance(value, Opened):
            opened.append(value.holder)
            return value.holder
        return value

    args, kwargs = pytree.tree_map(close, (args, kwargs), is_leaf=lambda value: isinstance(value, Opened))
    before = [outline(holder) for holder in opened]
    result = inner(*args, **kwargs)
    for holder, (found, tensors) in zip(opened, before, strict=True):
        _check_unchanged(type(holder).__name__, found, tensors, *outline(holder))

    def returned(value: Any) -> Any:
        if not is_holder(value):
            return value
        for index, holder in enumerate(opened):
            if holder is value:
                return Returned(index)
        raise ExportError(
            f"the model makes a {type(value).__name__} and returns it, which a program cannot; pass one that exists "
            "(a StaticCache), or pass use_cache=False"
        )

    return pytree.tree_map(returned, result, is_leaf=is_holder)


def _check_unchanged(name: str, old: Outline, old_tensors: Sequence[Any], new: Outline, new_tensors: Sequence[Any]) -> None:
    """ExportError when a call changed more of a holder than the contents of its tensors."""
    remedy = (
        "a program can only update its tensors in place: use a static cache, initialised with early_initialization(...), "
        "whose layers keep no counters in Python"
    )
    change = _difference(old, new, "")
    if change is not None:
        raise ExportError(f"the model changes '{change}' of the {name} that it is given; {remedy}")
    if len(old_tensors) != len(new_tensors) or any(a is not b for a, b in zip(old_tensors, new_tensors, strict=True)):
        raise ExportError(f"the model replaces tensors of the {name} that it is given by others; {remedy}")


def _difference(old: Outline, new: Outline, place: str) -> str | None:
    """Where two outlines differ; None when nowhere."""
    if (old.kind, old.keys, len(old.items)) != (new.kind, new.keys, len(new.items)):
        extra = [key for key in new.keys if key not in old.keys]
        return f"{place}.{extra[0]}".strip(".") if extra else place.strip(".") or "the whole"
    same = old.value is new.value or (old.kind == "value" and type(old.value) is type(new.value) and old.value == new.value)
    if not same:
        return place.strip(".")
    for number, (a, b) in enumerate(zip(old.items, new.items, strict=True)):
        found = _difference(a, b, f"{place}.{old.keys[number]}" if old.keys else f"{place}[{number}]")
        if found is not None:
            return found
    return None


def initialise(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Lets caches among the arguments that make their tensors at the first update make them now, as the ``model`` (of Hugging Face) will
    want them; leaves alone what is not like that."""
    for value in (*args, *kwargs.values()):
        layers = getattr(value, "layers", ()) if is_holder(value) else ()
        if all(getattr(layer, "is_initialized", True) for layer in layers):
            continue
        tokens = next((kwargs[name] for name in ("input_ids", "inputs_embeds") if isinstance(kwargs.get(name), torch.Tensor)), None)
        tokens = tokens if tokens is not None else next((each for each in args if isinstance(each, torch.Tensor)), None)
        shape = model._get_static_cache_init_shape() if hasattr(model, "_get_static_cache_init_shape") else None
        if shape is not None and tokens is not None and hasattr(value, "early_initialization") and getattr(value, "is_compileable", False):
            value.early_initialization(tokens.shape[0], *shape, model.dtype, model.device)
