"""Batches of inputs to learn about a model from: the ways in which a ``calibration=`` argument may be written, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ..errors import OptionError


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of the model."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def outputs(self, model: Callable[..., Any]) -> list[np.ndarray]:
        """The floating-point tensors among the results of the call, in order and in float64."""
        with torch.no_grad():
            leaves = tree_leaves(model(*self.args, **self.kwargs))
        return [leaf.double().cpu().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]

    def positional(self, parameters: Sequence[str]) -> tuple[Any, ...]:
        """All arguments by position, for a model whose parameters have these names; OptionError where that cannot be."""
        if unknown := [name for name in self.kwargs if name not in parameters]:
            raise OptionError(f"calibration names the input '{unknown[0]}', and the model has {named(parameters)}; give those")
        rest = parameters[len(self.args) :]
        args = (*self.args, *(self.kwargs[name] for name in rest[: len(self.kwargs)] if name in self.kwargs))
        if len(args) < len(self.args) + len(self.kwargs):
            missing = next(name for name in rest if name not in self.kwargs)
            raise OptionError(f"calibration gives no input '{missing}', but others after it; give all inputs up to the last one")
        return args


def batches_of(calibration: Any) -> tuple[Batch, ...]:
    """The batches of a ``calibration=`` argument: an iterable (such as a list or a DataLoader) whose items are each a tensor, a tuple or
    list of positional arguments, or a mapping of keyword arguments. None gives none. OptionError for anything else, or nothing at all."""
    if calibration is None:
        return ()
    if isinstance(calibration, torch.Tensor | Mapping) or not isinstance(calibration, Iterable):
        raise OptionError(f"calibration is a {type(calibration).__name__}; give a list of batches, such as [x] or [(x, y), ...]")
    batches = tuple(_batch(item) for item in calibration)
    if not batches:
        raise OptionError("calibration holds no batches; give some, or leave it out")
    return batches


def show_inputs(model: nn.Module, batches: Iterable[Batch], watchers: Mapping[nn.Module, Callable[[torch.Tensor], None]]) -> None:
    """Runs ``model`` on all batches, and shows each watcher the first argument of every call of its module."""

    def shown_to(watcher: Callable[[torch.Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: watcher(args[0].detach()) if args else None

    handles = [module.register_forward_pre_hook(shown_to(watcher)) for module, watcher in watchers.items()]
    try:
        with torch.no_grad():
            for batch in batches:
                model(*batch.args, **batch.kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _batch(item: Any) -> Batch:
    if isinstance(item, Mapping):
        return Batch(kwargs=dict(item))
    if isinstance(item, tuple | list):
        return Batch(tuple(item))
    return Batch((item,))


def named(names: Sequence[str]) -> str:
    """Names of inputs for an error."""
    return ", ".join(f"'{name}'" for name in names) or "no inputs"
