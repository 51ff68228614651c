"""What a compiled program takes from the model it came from, and how changes of it are noticed."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

PLACE = 2
"""How a tensor is watched whose content may change: by identity and address alone (see ``_native.Dispatch.watch``)."""


def owner_of(model: Callable[..., Any]) -> tuple[Any, str]:
    """The module whose weights a model uses (None for a plain function), and what its parameters' names start with in a program."""
    import torch

    if isinstance(model, torch.nn.Module):
        return model, ""
    owner = getattr(model, "__self__", None)
    return (owner, "owner.") if isinstance(owner, torch.nn.Module) else (None, "")


def _used(model: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """The modules and tensors that a function refers to by its closure, its defaults, its globals, or as a functools.partial, by name."""
    import torch

    if isinstance(model, torch.nn.Module | torch.Tensor):
        yield "", model
    if isinstance(model, torch.nn.Module) or depth == 0:
        return
    found: dict[str, Any] = {}
    if isinstance(model, functools.partial):
        found = {"function": model.func, **{f"argument {index}": value for index, value in enumerate(model.args)}, **model.keywords}
    elif isinstance(model, types.MethodType):
        found = {"owner": model.__self__, "function": model.__func__}
    elif isinstance(model, types.FunctionType) and (model.__module__ or "").partition(".")[0] != "torch":
        try:
            parts = inspect.getclosurevars(model)
        except ValueError:  # a variable of the closure has no value yet
            return
        defaults = {f"default {index}": value for index, value in enumerate(model.__defaults__ or ())}
        found = {**parts.globals, **parts.nonlocals, **defaults, **(model.__kwdefaults__ or {})}
    for name, value in found.items():
        if isinstance(value, torch.nn.Module | torch.Tensor | functools.partial | types.MethodType | types.FunctionType):
            yield from ((f"{name} {inner}", each) for inner, each in _used(value, depth - 1))


def buffer_of(model: Callable[..., Any], name: str) -> Any:
    """The buffer of that name in a program of ``model``; None when there is none."""
    owner, prefix = owner_of(model)
    try:
        return owner.get_buffer(name.removeprefix(prefix)) if owner is not None else None
    except AttributeError:
        return None


def watched(model: Callable[..., Any], changing: Collection[str]) -> Iterator[tuple[dict[str, Any], str, int]]:
    """What a compiled program takes from a module: (dictionary, key, how to watch it) of submodules, parameters, buffers, training flags.

    ``changing`` are the names of the buffers that programs change.
    """
    import torch

    owner, prefix = owner_of(model)
    if owner is None:
        used = dict(_used(model))
        for value in used.values():
            if isinstance(value, torch.nn.Module):
                yield from watched(value, ())
        yield from ((used, name, 1) for name, value in used.items() if isinstance(value, torch.Tensor))
        return
    for path, module in owner.named_modules():
        yield vars(module), "training", 0
        for name in module._modules:
            yield module._modules, name, 0
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                full = prefix + (f"{path}.{name}" if path else name)
                yield tensors, name, 0 if value is None else PLACE if full in changing else 1
