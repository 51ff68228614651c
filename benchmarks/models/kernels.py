"""Single layers at the sizes that big models spend their time in, and a network so small that only the call itself counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mlp import Perceptron
from .randomise import randomise

Made = tuple[nn.Module, tuple[Tensor, ...]]


def _made(model: nn.Module, seed: int, *shape: int) -> Made:
    inputs = (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)),)
    return randomise(model, inputs, seed), inputs


def matmul_128x768x768(seed: int = 0) -> Made:
    """A linear layer of a transformer of width 768 on 128 tokens."""
    return _made(nn.Linear(768, 768), seed, 128, 768)


def conv3x3_64_56(seed: int = 0) -> Made:
    """The first 3x3 convolution of ResNet-50."""
    return _made(nn.Conv2d(64, 64, 3, 1, 1), seed, 1, 64, 56, 56)


def conv1x1_256_512_14(seed: int = 0) -> Made:
    """A pointwise convolution, 256 to 512 channels on 14x14 pixels."""
    return _made(nn.Conv2d(256, 512, 1), seed, 1, 256, 14, 14)


def conv3x3_512_7(seed: int = 0) -> Made:
    """The last 3x3 convolution of ResNet-50."""
    return _made(nn.Conv2d(512, 512, 3, 1, 1), seed, 1, 512, 7, 7)


def mlp_tiny(seed: int = 0) -> Made:
    """Two layers, 16 wide, one row: what a call costs when there is nothing to compute."""
    return _made(Perceptron((16, 16, 16)), seed, 1, 16)
