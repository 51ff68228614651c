"""The network of the text model: tokens in, several characteristics of a kernel out. The only module of the cost models that needs torch.

Convolutions over the tokens, two of which halve their number, then attention pooling with a few learned queries (Lee et al., "Set
Transformer", 2019), then one head for all characteristics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .model import Floats
from .tokens import CHANNELS, PADDING, Tokens, Vocabulary


@dataclass(frozen=True)
class Shape:
    """Sizes of a network. ``words`` counts the vocabulary with its two reserved numbers."""

    words: int
    outputs: int
    embedding: int = 32
    width: int = 64
    queries: int = 4
    counters: int = 8


@dataclass(frozen=True)
class Batch:
    """Kernels of equal length after padding: ids [kernels, tokens], channels [kernels, tokens, C], and which tokens are real."""

    ids: Tensor
    channels: Tensor
    real: Tensor


def batch(texts: Sequence[Tokens], vocabulary: Vocabulary) -> Batch:
    """Texts (at least one) as one batch, the length a multiple of the network's stride."""
    length = max(-(-max(map(len, texts)) // STRIDE), 1) * STRIDE
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    channels = torch.zeros(len(texts), length, len(CHANNELS))
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(vocabulary.encode(text))
        channels[row, : len(text)] = torch.from_numpy(text.channels)
    return Batch(ids, channels, ids != PADDING)


STRIDE = 4
"""Tokens for each position that attention sees."""


class TextNetwork(nn.Module):
    """Characteristics [kernels, outputs] of a batch of kernels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.words = nn.Embedding(shape.words, shape.embedding, padding_idx=PADDING)
        self.numbers = nn.Linear(len(CHANNELS), shape.embedding)
        self.first = nn.Conv1d(shape.embedding, shape.width, 5, stride=2, padding=2)
        self.second = nn.Conv1d(shape.width, shape.width, 5, stride=2, padding=2)
        self.third = nn.Conv1d(shape.width, shape.width, 3, padding=1)
        self.attend = nn.Linear(shape.width, shape.queries)
        self.counted = nn.Linear(shape.width, shape.counters)
        pooled = shape.width * (shape.queries + 1) + 2 * shape.counters
        self.head = nn.Sequential(nn.Linear(pooled, shape.width), nn.GELU(), nn.Linear(shape.width, shape.outputs))

    def forward(self, kernels: Batch) -> Tensor:
        positions, real = self.positions(kernels)
        pooled = torch.einsum("bnq,bnw->bqw", self.attention(positions, real), positions)
        largest = positions.masked_fill(~real[..., None], float("-inf")).amax(1)
        result: Tensor = self.head(torch.cat([pooled.flatten(1), largest, self.counts(kernels, positions)], 1))
        return result

    def positions(self, kernels: Batch) -> tuple[Tensor, Tensor]:
        """What is known at each position [kernels, tokens / STRIDE, width], and which positions are real."""
        values = (self.words(kernels.ids) + self.numbers(kernels.channels)) * kernels.real[..., None]
        values = functional.gelu(self.first(values.transpose(1, 2)))
        values = functional.gelu(self.second(values))
        values = values + functional.gelu(self.third(values))
        return values.transpose(1, 2), kernels.real.view(len(kernels.real), -1, STRIDE).any(2)

    def counts(self, kernels: Batch, positions: Tensor) -> Tensor:
        """Logarithms [kernels, 2 * counters] of sums over the text: what a position is worth, as often as it runs and as it is written.

        Time and numbers of instructions are such sums, while attention gives means.
        """
        worth = functional.softplus(self.counted(positions))
        sums = []
        for name in ("executions", "copies"):
            often = torch.exp2(16 * kernels.channels[..., CHANNELS.index(name)]) - 1
            often = often.view(len(often), -1, STRIDE).mean(2)
            sums.append(torch.log1p((worth * often[..., None]).sum(1)) / 8)
        return torch.cat(sums, 1)

    def attention(self, positions: Tensor, real: Tensor) -> Tensor:
        """Weights [kernels, positions, queries], which sum to one over the positions."""
        weights: Tensor = self.attend(positions).masked_fill(~real[..., None], float("-inf")).softmax(1)
        return weights

    @torch.no_grad()
    def attention_by_word(self, texts: Sequence[Tokens], vocabulary: Vocabulary) -> Floats:
        """Share of the attention that each number of the vocabulary gets, mean over ``texts`` and queries."""
        self.eval()
        kernels = batch(texts, vocabulary)
        weights = self.attention(*self.positions(kernels)).mean(2) / STRIDE
        shares = torch.zeros(len(vocabulary)).index_add_(0, kernels.ids.flatten(), weights.repeat_interleave(STRIDE, 1).flatten())
        return np.asarray(shares[1:].numpy() / max(float(shares[1:].sum()), 1e-12), dtype=np.float64)


def loss(predicted: Tensor, wanted: Tensor, known: Tensor, task: Tensor) -> Tensor:
    """Ranking within tasks by the first characteristic, and regression of all.

    ``predicted``, ``wanted`` and ``known`` are [kernels, outputs], in standard deviations; ``task`` numbers the kernels' tasks. A pair
    of kernels counts by how much their times differ: pairs that differ by noise only have nothing to teach.
    """
    regression = (functional.huber_loss(predicted, wanted, reduction="none") * known).sum(0) / known.sum(0).clamp(min=1)
    weights = torch.tensor([1.0] + [OTHERS / max(len(regression) - 1, 1)] * (len(regression) - 1))
    difference = wanted[:, None, 0] - wanted[None, :, 0]
    pairs = (task[:, None] == task[None, :]) * difference.clamp(0, 1)
    slower = predicted[:, None, 0] - predicted[None, :, 0]
    ranking = (functional.softplus(-SHARPNESS * slower) * pairs).sum() / pairs.sum().clamp(min=1e-6)
    return ranking + (regression * weights).sum()


OTHERS = 0.5
"""Weight of all characteristics but the first together, against that one's."""
SHARPNESS = 3.0
"""Of the ranking, per standard deviation."""
