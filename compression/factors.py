"""The factors nearest to a matrix, for the inputs that it meets: of low rank, and Monarch's.

Everything is computed in float64 on the CPU. The second moment of a layer's inputs is the sum of x x^T, ``[in_features, in_features]``;
None stands for the identity, for which errors are those of the matrix itself.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .modules import dense

_DAMPING = 1e-2
"""Share of the inputs' mean square that is taken to be noise in all directions: those that calibration did not show may still come."""
_RIDGE = 1e-12


@dataclass(frozen=True)
class Target:
    """The matrix to come near to, ``[out_features, in_features]``, and what it is applied to: approximations are fitted to the inputs with
    the second moment ``moment``, and judged by others, with the moment ``judge``, which they have not seen."""

    weight: Tensor
    moment: Tensor | None = None
    judge: Tensor | None = None

    @cached_property
    def damped(self) -> Tensor | None:
        """The moment to fit to: that of the inputs and some noise."""
        if self.moment is None:
            return None
        noise = _DAMPING * self.moment.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        return self.moment + noise * torch.eye(len(self.moment), dtype=torch.float64)

    @cached_property
    def size(self) -> float:
        """The squared Frobenius norm of the layer's results for the judging inputs."""
        return self._square(self.weight)

    def error(self, approximation: Tensor) -> float:
        """The relative error, in the Frobenius norm, of the layer's results with another matrix."""
        return relative(self._square(self.weight - approximation), self.size)

    def _square(self, matrix: Tensor) -> float:
        applied = matrix if self.judge is None else matrix @ self.judge
        return float((applied * matrix).sum())


def relative(square: float, size: float) -> float:
    """The relative error of a squared difference; of results that are zero it is none, or infinite."""
    if size <= 0:
        return 0.0 if square <= 0 else math.inf
    return math.sqrt(max(square, 0.0) / size)


class LowRank:
    """The best matrices of each rank: W' = U U^T W with the leading left singular vectors U of W R, R R^T the inputs' second moment (the
    truncation of SVD-LLM, Wang et al. 2024, without its inverse; Eckart and Young 1936 where the moment is the identity)."""

    def __init__(self, target: Target) -> None:
        self._target = target
        weight, moment, judge = target.weight, target.damped, target.judge
        self._directions = _leading(weight if moment is None else weight @ torch.linalg.cholesky(moment))
        along = self._directions.T @ weight
        self._squares = ((along if judge is None else along @ judge) * along).sum(1)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """``down`` and ``up`` of :class:`LowRankLinear`."""
        up = self._directions[:, :rank].contiguous()
        return up.T @ self._target.weight, up

    def error(self, rank: int) -> float:
        """Of the results, those along the directions left out."""
        return relative(float(self._squares[rank:].sum()), self._target.size)


class Monarch:
    """The Monarch matrices of ``blocks`` parts and ``groups`` groups, of each rank.

    Each slice of the matrix that goes from one part of the input to one group of the results is approximated by itself, by its leading
    singular vectors (section 3.3 of the paper), with inputs weighted by the part's own second moment. Where there is a moment, the second
    factor is then fitted to the first by least squares, which takes into account that parts are correlated.
    """

    def __init__(self, target: Target, blocks: int, groups: int) -> None:
        self._target = target
        self.blocks, self.groups = blocks, groups
        out_features, in_features = target.weight.shape
        self._depth, self._width = in_features // blocks, out_features // groups
        slices = target.weight.reshape(self._width, groups, blocks, self._depth).permute(1, 2, 0, 3)
        applied = slices if (root := self._block_roots()) is None else slices @ root
        self._directions = _leading(applied)
        self._slices = slices

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """``first`` and ``second`` of :class:`MonarchLinear`."""
        directions = self._directions[..., :rank]
        first = (directions.mT @ self._slices).permute(1, 3, 0, 2).reshape(self.blocks, self._depth, self.groups * rank)
        if self._target.damped is None:
            second = directions.permute(0, 1, 3, 2).reshape(self.groups, self.blocks * rank, self._width)
            return first.contiguous(), second.contiguous()
        return first.contiguous(), self._fitted(first, rank, self._target.damped)

    def error(self, rank: int) -> float:
        return self._target.error(dense(*self.factors(rank)))

    def _block_roots(self) -> Tensor | None:
        """The root of each part's own second moment, ``[blocks, depth, depth]``."""
        if (moment := self._target.damped) is None:
            return None
        parts = moment.reshape(self.blocks, self._depth, self.blocks, self._depth)
        roots: Tensor = torch.linalg.cholesky(torch.stack([parts[block, :, block] for block in range(self.blocks)]))
        return roots

    def _fitted(self, first: Tensor, rank: int, moment: Tensor) -> Tensor:
        """The second factor that is best for a given first one: the solution of the normal equations of each group."""
        moment = moment.reshape(-1, self.blocks, self._depth)
        inner = self.blocks * rank
        eye = torch.eye(inner, dtype=torch.float64)
        fitted = []
        for group, part in enumerate(first.reshape(self.blocks, self._depth, self.groups, rank).unbind(2)):
            seen = torch.einsum("kbd,bdr->kbr", moment, part).reshape(-1, inner)
            gram = torch.einsum("bdr,bdi->bri", part, seen.reshape(self.blocks, self._depth, inner)).reshape(inner, inner)
            wanted = seen.T @ self._target.weight[group :: self.groups].T
            # Slices that are zero have no directions: with the ridge, the matrix is invertible and their share of the solution zero.
            ridge = _RIDGE * gram.trace().clamp_min(torch.finfo(torch.float64).tiny)
            fitted.append(torch.linalg.solve(gram + ridge * eye, wanted))
        return torch.stack(fitted)


def _leading(matrices: Tensor) -> Tensor:
    """The left singular vectors of matrices, the leading ones first, as many as the shorter side.

    By way of the smaller Gram matrix, which takes a fraction of a singular value decomposition's time. What that loses, directions below
    1e-8 of the largest, no bound on an error in fp32 can tell.
    """
    rows, columns = matrices.shape[-2:]
    leading: Tensor
    if rows <= columns:
        leading = torch.linalg.eigh(matrices @ matrices.mT).eigenvectors.flip(-1)
    else:
        right = torch.linalg.eigh(matrices.mT @ matrices).eigenvectors.flip(-1)
        leading = torch.linalg.qr(matrices @ right).Q
    return leading


Family = LowRank | Monarch


def least_rank(family: Family, bound: float, ranks: Sequence[int]) -> int | None:
    """The first of the ascending ``ranks`` whose error is within the bound; None where the last one's is not. Errors fall with the rank."""
    if not ranks or family.error(ranks[-1]) > bound:
        return None
    return ranks[bisect.bisect_left(ranks[:-1], True, key=lambda rank: family.error(rank) <= bound)]
