"""How far a system's outputs are from the truth, and how far they may be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..ir import relative_error

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
    """The :func:`~mlc.ir.relative_error` of the outputs; infinity also when their number or a shape differs."""
    if len(actual) != len(expected) or any(got.shape != want.shape for got, want in zip(actual, expected, strict=True)):
        return math.inf
    return relative_error(map(_array, actual), map(_array, expected))


def _array(value: Tensor) -> np.ndarray:
    """The numbers of a tensor: floats in float64, since NumPy lacks some of PyTorch's dtypes."""
    plain = value.detach().cpu().resolve_conj()
    return np.asarray((plain.double() if plain.is_floating_point() else plain).numpy())


def allowed(eager_error: float) -> float:
    """The error that mlc may make where PyTorch's fp32 result makes ``eager_error``."""
    return max(FACTOR * eager_error, FLOOR)
