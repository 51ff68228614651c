"""How far a system's outputs are from the truth, and how far they may be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

FLOOR = 1e-5
"""Norm-wise error that is always allowed in fp32."""

FACTOR = 10.0
"""How many times PyTorch's own fp32 error is allowed."""

UNRELATED = 1.0
"""Error from which outputs have nothing in common: all that is certain of weights in lower precision, whose error is the model's affair."""


def tensors(output: Any) -> list[Tensor]:
    """The tensors of any nested output, Hugging Face's output classes included, in order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def reference(model: Callable[..., Any], inputs: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """The outputs of ``model`` computed in float64 by PyTorch; neither the model nor the inputs change."""
    wide_inputs, wide_kwargs = pytree.tree_map(_widened, (tuple(inputs), dict(kwargs or {})))
    wide_model = copy.deepcopy(model).double() if isinstance(model, nn.Module) else model
    with torch.no_grad():
        return tensors(wide_model(*wide_inputs, **wide_kwargs))


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest norm-wise relative error ``|actual - expected| / |expected|`` over the outputs.

    Infinity when the number, the shapes or the finiteness of the outputs differ.
    """
    if len(actual) != len(expected):
        return math.inf
    worst = 0.0
    for got, want in zip(actual, expected, strict=True):
        if got.shape != want.shape:
            return math.inf
        difference = torch.linalg.vector_norm(got.double() - want.double()).item()
        scale = torch.linalg.vector_norm(want.double()).item()
        relative = difference / scale if scale > 0 else difference
        if not math.isfinite(relative):
            return math.inf
        worst = max(worst, relative)
    return worst


def allowed(eager_error: float) -> float:
    """The error that mlc may make where PyTorch's fp32 result makes ``eager_error``."""
    return max(FACTOR * eager_error, FLOOR)
