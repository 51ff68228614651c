"""Holds an imported model to what PyTorch computes eagerly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlc import ir
from mlc.frontend import Imported, import_model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Allowed error of an element, relative to the largest element of the expected tensor (or 1)."""


def array(tensor: Tensor) -> np.ndarray:
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def run(imported: Imported, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> tuple[np.ndarray, ...]:
    """The graph's outputs for the tensors among the arguments."""
    return ir.interpret(imported.graph, [array(tensor) for tensor in tensors((tuple(args), dict(kwargs or {})))])


def check(model: nn.Module | Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Imported:
    """Imports ``model`` and compares it with eager PyTorch: dtypes, shapes and numbers, also after a round trip through text."""
    kwargs = dict(kwargs or {})
    with torch.no_grad():
        expected = tensors(model(*pytree.tree_map_only(Tensor, Tensor.clone, tuple(args)), **kwargs))
    imported = import_model(model, args, kwargs)
    ir.verify(imported.graph)
    check_round_trip(imported.graph)
    outputs = run(imported, args, kwargs)
    indices = leaf_indices(imported.signature.output_tree)
    assert len(indices) == len(expected)
    for index, truth in zip(indices, expected, strict=True):
        compare(outputs[index], truth)
        assert imported.graph.outputs[index].tensor.dtype.numpy == array(truth).dtype
    return imported


def compare(found: np.ndarray, truth: Tensor) -> None:
    expected = array(truth)
    assert found.shape == expected.shape
    if truth.dtype in TOLERANCE:
        expected, found = expected.astype(np.float64), found.astype(np.float64)
        finite = np.abs(expected[np.isfinite(expected)])
        tolerance = TOLERANCE[truth.dtype] * max(1.0, finite.max(initial=0.0))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    else:
        np.testing.assert_array_equal(found, expected)


def check_round_trip(graph: ir.Graph) -> None:
    """Text and back; constants that the text leaves out are given by their digest."""
    constants = {
        node.attributes["value"].digest: node.attributes["value"]  # type: ignore[union-attr]
        for node in graph.walk()
        if node.op == "constant"
    }
    text = ir.print_graph(graph)
    assert ir.print_graph(ir.parse(text, constants)) == text


def leaf_indices(tree: Mapping[str, Any]) -> list[int]:
    """The tensors of a tree in order, as numbers of flat outputs or inputs."""
    if tree["kind"] == "leaf":
        return [tree["index"]]
    return [index for item in tree.get("items", ()) for index in leaf_indices(item)]


def check_both_precisions(function: Callable[..., Any], args: Sequence[Any]) -> Imported:
    """Checks ``function`` on ``args`` and, in the same graph, on their float32 tensors widened to float64."""
    count = len(args)
    widened = [x.double() if isinstance(x, Tensor) and x.dtype is torch.float32 else x for x in args]
    return check(lambda *both: (function(*both[:count]), function(*both[count:])), [*args, *widened])


def rand(*shape: int, seed: int = 0) -> Tensor:
    """Normal float32 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def ints(*shape: int, low: int = -9, high: int = 10, dtype: torch.dtype = torch.int64, seed: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bools(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
