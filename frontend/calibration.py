"""Batches of inputs to learn about a model from: how they may be written, and what the model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ..errors import OptionError


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of the model."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def outputs(self, model: Callable[..., Any]) -> list[torch.Tensor]:
        """The floating-point tensors among the results of the call, in order."""
        with torch.no_grad():
            leaves = tree_leaves(model(*self.args, **self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


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


def _batch(item: Any) -> Batch:
    if isinstance(item, Mapping):
        return Batch(kwargs=dict(item))
    if isinstance(item, tuple | list):
        return Batch(tuple(item))
    return Batch((item,))


def relative_error(results: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> float:
    """The worst relative error, in the Euclidean norm, of tensors compared one by one; infinity where a result is not finite."""
    return max((_error(result.double(), right.double()) for result, right in zip(results, expected, strict=True)), default=0.0)


def _error(result: torch.Tensor, expected: torch.Tensor) -> float:
    if torch.equal(result, expected):
        return 0.0
    size = float(expected.norm())
    error = float((result - expected).norm()) / size if size else float("inf")
    return error if error == error else float("inf")
