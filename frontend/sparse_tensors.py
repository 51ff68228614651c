"""Sparse tensors of PyTorch among a module's parameters and buffers: exported as the dense tensors that they stand for.

torch.export does not trace most operations on them. Whether and how zeros are left out is decided later, by passes.
"""

from __future__ import annotations

import copy

import torch
from torch import nn


def with_dense_tensors(module: nn.Module) -> nn.Module:
    """``module``, or where some of its tensors are sparse a copy of it in which they are dense; other tensors are the same ones."""
    tensors = [*module.parameters(), *module.buffers()]
    sparse = [tensor for tensor in tensors if tensor.layout is not torch.strided]
    if not sparse:
        return module
    same: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    for tensor in sparse:
        dense = tensor.detach().to_dense()
        same[id(tensor)] = nn.Parameter(dense, requires_grad=False) if isinstance(tensor, nn.Parameter) else dense
    return copy.deepcopy(module, same)
