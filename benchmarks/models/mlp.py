"""The smallest network worth timing: three linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .randomise import randomise


class Perceptron(nn.Module):
    """Linear layers of the given widths with ReLU between them."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def mlp(widths: Sequence[int] = (784, 1024, 1024, 10), batch: int = 32, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """784-1024-1024-10 perceptron; input (batch, 784), output (batch, 10)."""
    inputs = (torch.randn(batch, widths[0], generator=torch.Generator().manual_seed(seed)),)
    return randomise(Perceptron(widths), inputs, seed), inputs
