"""What stands in for an nn.Linear: ordinary torch modules of two factors."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn


class FactoredLinear(nn.Module):
    """A linear layer whose matrix is a product of factors. ``weight`` is that product, for code that looks at it."""

    bias: nn.Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_parameter("bias", bias)

    @property
    @abstractmethod
    def weight(self) -> Tensor:
        """The dense matrix, ``[out_features, in_features]``; computed when asked for."""


class LowRankLinear(FactoredLinear):
    """``x @ down.T @ up.T + bias`` with ``down`` of ``[rank, in_features]`` and ``up`` of ``[out_features, rank]``."""

    def __init__(self, down: Tensor, up: Tensor, bias: nn.Parameter | None = None) -> None:
        super().__init__(down.shape[1], up.shape[0], bias)
        self.down = nn.Parameter(down, requires_grad=down.requires_grad)
        self.up = nn.Parameter(up, requires_grad=up.requires_grad)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def weight(self) -> Tensor:
        return self.up @ self.down

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, bias={self.bias is not None}"


class MonarchLinear(FactoredLinear):
    """A Monarch matrix (Dao et al., "Monarch: Expressive Structured Matrices for Efficient and Accurate Training", 2022): two
    block-diagonal factors with a transposition between them and one after them.

    The input is cut into ``blocks`` parts. ``first``, ``[blocks, in_features / blocks, groups * rank]``, maps each part to ``groups``
    pieces of ``rank`` numbers; ``second``, ``[groups, blocks * rank, out_features / groups]``, maps the pieces that all parts have for a
    group to the results ``group, group + groups, group + 2 * groups, ...``. The paper's matrices have rank 1, and as many groups as blocks.
    """

    def __init__(self, first: Tensor, second: Tensor, bias: nn.Parameter | None = None) -> None:
        blocks, depth, _ = first.shape
        groups, inner, width = second.shape
        super().__init__(blocks * depth, groups * width, bias)
        self.blocks = blocks
        self.groups = groups
        self.rank = inner // blocks
        self.first = nn.Parameter(first, requires_grad=first.requires_grad)
        self.second = nn.Parameter(second, requires_grad=second.requires_grad)

    @property
    def weight(self) -> Tensor:
        return dense(self.first, self.second)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[:-1]
        parts = x.reshape(-1, self.blocks, self.in_features // self.blocks).transpose(0, 1)
        pieces = torch.bmm(parts, self.first).reshape(self.blocks, -1, self.groups, self.rank)
        gathered = pieces.permute(2, 1, 0, 3).flatten(2)
        result = torch.bmm(gathered, self.second).permute(1, 2, 0).reshape(*shape, self.out_features)
        return result if self.bias is None else result + self.bias

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, blocks={self.blocks}, groups={self.groups}, rank={self.rank}, bias={self.bias is not None}"


def dense(first: Tensor, second: Tensor) -> Tensor:
    """The matrix of Monarch factors, ``[out_features, in_features]``."""
    blocks, depth = first.shape[:2]
    groups, inner, width = second.shape
    rank = inner // blocks
    product = torch.einsum("bdgr,gbrw->wgbd", first.reshape(blocks, depth, groups, rank), second.reshape(groups, blocks, rank, width))
    return product.reshape(width * groups, blocks * depth)
