"""Views, movement, creation, gathers and sorting against eager PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager import bools, check, check_both_precisions, ints, rand
from torch import Tensor

X = rand(2, 3, 4)

MOVEMENT: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda x: (x.view(6, -1), x.reshape(-1), x.flatten(1), x.unflatten(2, (2, -1)), x.view(2, 3, 4)),
    "unsqueeze": lambda x: (x.unsqueeze(-1), x.unsqueeze(0), x[:1].squeeze(), x[:1].squeeze(0), x[:1].squeeze(1), x[None, :, None]),
    "permute": lambda x: (x.permute(2, 0, 1), x.transpose(-1, 0), x[0].T, x.mT, x.swapaxes(0, 1), x.movedim(0, -1)),
    "expand": lambda x: (x[:1].expand(5, -1, 4), x.expand(7, 2, 3, 4), x[0, 0].broadcast_to(2, 4)),
    "repeat": lambda x: (x.repeat(2, 1, 3), x.repeat(2, 1, 1, 1), x[:1].repeat(3, 1, 1), x.tile(2), x.repeat_interleave(2, 1)),
    "slice": lambda x: (x[:, 1:], x[..., -2:], x[:, ::2], x[:, 5:], x[:, 1:-1, 1:3], x[:, -100:100], x[:, 2:1]),
    "select": lambda x: (x[0], x[-1], x[..., 1], x.select(1, -2), x[1, 2, 3]),
    "narrow": lambda x: (x.narrow(1, 1, 2), x.narrow(2, -3, 2)),
    "split": lambda x: (x.split(2, 1), x.split([1, 3], -1), x.chunk(3, -1), x.chunk(2, 1), x.tensor_split(2, 1), x.unbind(1)),
    "cat": lambda x: (
        torch.cat([x, x], -1),
        torch.cat([x, torch.empty(0, dtype=x.dtype)], 1),
        torch.stack([x, x], 1),
        torch.hstack([x, x]),
    ),
    "cat of several dtypes": lambda x: (torch.cat([x, x.half()]), torch.cat([x, x > 0])),
    "flip": lambda x: (x.flip(0), x.flip(-1, 0), x.fliplr(), x.rot90(1, (1, 2))),
    "roll": lambda x: (x.roll(1), x.roll((1, -2), (0, 2)), x.roll(-7, 1), x.roll(0, 0)),
    "pad": lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, 0, 0, 2), value=-math.inf), F.pad(x, (-1, 1)), F.pad(x, (-1, -2, 1, -1))),
    "reflection": lambda x: (F.pad(x, (1, 2), mode="reflect"), F.pad(x, (1, 2), mode="replicate"), F.pad(x, (1, 1), mode="circular")),
    "shuffle": lambda x: (F.pixel_shuffle(x.view(1, 4, 2, 3), 2), F.pixel_unshuffle(x.view(1, 1, 4, 6), 2), F.channel_shuffle(x, 3)),
    "unfold": lambda x: (x.unfold(2, 2, 1), x.unfold(0, 2, 2), x.unfold(-2, 2, 1), F.unfold(x.view(1, 2, 3, 4), 2)),
    "diagonal": lambda x: (x.diagonal(), x.diagonal(1, 1, 2), x.diagonal(-1, -1, 0), torch.diag(x[0, 0]), torch.diag_embed(x)),
    "triangle": lambda x: (x.tril(), x.triu(1), x.tril(-1)),
    "as_strided": lambda x: (x.as_strided((2, 3), (4, 1), 1), x.as_strided((2, 3, 4), (12, 4, 1)), x.as_strided((3, 3), (1, 2))),
    "as_strided of a view": lambda x: x.transpose(0, 1).as_strided((2, 4), (12, 1), 4),
    "assignment to a slice": lambda x: _assigned(x, lambda y: y[:, 1:3].mul_(2)),
    "assignment with a step": lambda x: _assigned(x, lambda y: y[..., ::2].fill_(7)),
    "assignment to a row": lambda x: _assigned(x, lambda y: y[1].copy_(y[0] * 2)),
    "assignment by a mask": lambda x: _assigned(x, lambda y: y.__setitem__(y > 0.3, 5.0)),
    "assignment by a mask of rows": lambda x: _assigned(x, lambda y: y.__setitem__(y[..., 0] > 0, -1.0)),
    "masked_scatter": lambda x: x.masked_scatter(x > 0, torch.arange(24, dtype=x.dtype)),
    "creation": lambda x: (torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2.5), x.new_full((2,), 3), x.new_zeros(2, 2)),
    "creation of integers": lambda x: (torch.full((2,), 3), torch.full((), True), torch.arange(5), torch.zeros(3, dtype=torch.bool)),
    "arange": lambda x: (
        torch.arange(1, 7, 2),
        torch.arange(5, 0, -2),
        torch.arange(0, 1, 0.3),
        torch.arange(3, dtype=x.dtype) + x[0, 0, 0],
    ),
    "linspace": lambda x: torch.linspace(0, 1, 5, dtype=x.dtype) * x[0, 0, 0],
    "eye": lambda x: torch.eye(3, 4, dtype=x.dtype) + x,
    "meshgrid": lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij"),
    "copies vanish": lambda x: (x.clone(), x.detach(), x.contiguous(), x.to(x.dtype), F.dropout(x, 0.5, training=False)),
}


def _assigned(x: Tensor, change: Callable[[Tensor], Any]) -> Tensor:
    y = x.clone()
    change(y)
    return y


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(name: str) -> None:
    check_both_precisions(MOVEMENT[name], [X])


KEEP = bools(4, 5)
ROWS = ints(5, low=-3, high=3)
GATHERS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "embedding": (lambda i, w: (F.embedding(i, w), F.embedding(i, w, padding_idx=2)), [ints(2, 3, low=0, high=7), rand(7, 4)]),
    "index by a tensor": (lambda i, x: (x[i], x[:, i], x[..., i], x[i[0]]), [ints(2, 2, low=-3, high=3), rand(3, 3, 3)]),
    "index by several": (lambda i, x: (x[i, i], x[:, i, i], x[i, :, i], x[i[:, None], i], x[i, 1]), [ROWS, rand(3, 3, 4)]),
    "index by a range and None": (lambda i, x: (x[1:, i], x[None, i], x[i, None]), [ROWS, rand(3, 3, 4)]),
    "index by int32": (lambda i, x: x[i], [ROWS.int(), rand(3, 2)]),
    "index_select": (lambda i, x: (x.index_select(0, i), x.index_select(-1, i)), [ints(5, low=0, high=3), rand(3, 3)]),
    "gather": (lambda i, x: (x.gather(1, i), x.gather(0, i)), [ints(2, 3, low=0, high=3), rand(4, 3)]),
    "take": (lambda i, x: (torch.take(x, i), torch.take_along_dim(x, i[None].abs() % 3, 0)), [ints(3, low=0, high=9), rand(3, 3)]),
    "one_hot": (lambda i, x: (F.one_hot(i, 5), F.one_hot(i, 5) * x), [ints(4, low=0, high=5), rand(4, 5)]),
    "scatter of one": (lambda i, x: (x.scatter(1, i, 9.0), x.scatter(1, i, x * 2)), [ints(4, 1, low=0, high=5), rand(4, 5)]),
    "topk": (lambda i, x: (x.topk(2), x.topk(2, 0, largest=False), x.topk(5)), [ROWS, rand(4, 5)]),
    "sort": (
        lambda i, x: (x.sort(), x.sort(0, descending=True), i.sort(stable=True), i.sort(descending=True, stable=True), x.argsort(0)),
        [ROWS, rand(4, 5)],
    ),
    "kthvalue": (lambda i, x: (x.kthvalue(2), x.kthvalue(1, 0, keepdim=True)), [ROWS, rand(4, 5)]),
    "bucketize": (
        lambda i, x: (torch.bucketize(x, x[0].sort().values), torch.bucketize(i, torch.arange(-2, 2), right=True)),
        [ROWS, rand(4, 5)],
    ),
    "searchsorted": (lambda i, x: torch.searchsorted(x.sort().values, x * 0.5), [ROWS, rand(4, 5)]),
    "masks of a decoder": (
        lambda i, x: (torch.tril(torch.ones(4, 4)).bool()[i, :][:, :2], x.masked_fill(~KEEP, -math.inf)),
        [ints(2, low=0, high=4), rand(4, 5)],
    ),
}


@pytest.mark.parametrize("name", GATHERS)
def test_gathers_and_sorting(name: str) -> None:
    function, args = GATHERS[name]
    check(function, args)
