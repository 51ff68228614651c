"""Scatters and assignments to computed positions against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eager import bools, check, check_both_precisions, ints, rand
from torch import Tensor, nn

REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")
X, SOURCE, INDEX = rand(4, 5), rand(4, 5, seed=1), ints(4, 5, low=0, high=4)


def reduced(x: Tensor, i: Tensor, s: Tensor) -> list[Tensor]:
    kinds = [x.scatter_reduce(dim, i, s, kind, include_self=include) for kind in REDUCTIONS for dim, include in ((0, True), (-1, False))]
    return [*kinds, x.scatter_reduce(1, i[:2, :3], s, "mean", include_self=False)]


SCATTERS: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
    "scatter": (lambda x, i, s: (x.scatter(0, i, s), x.scatter(-1, i[:2, :3], s), x.scatter(1, i, 2.5)), [X, INDEX, SOURCE]),
    "scatter that combines": (
        lambda x, i, s: (x.scatter(0, i, s, reduce="add"), x.scatter(1, i, s, reduce="multiply"), x.scatter_add(1, i[:3, :2], s)),
        [X, INDEX, SOURCE],
    ),
    "scatter_reduce": (reduced, [X, INDEX, SOURCE]),
    "scatter_reduce of integers": (reduced, [ints(4, 5), INDEX, ints(4, 5, seed=3)]),
    "scatter into no axes": (lambda x, i, s: (x.scatter(0, i, s), x.scatter_add(0, i, s)), [rand(), torch.tensor(0), rand(seed=1)]),
    "scatter of nothing": (lambda x, i, s: (x.scatter(0, i, s), x.scatter_add(1, i, s)), [X, ints(0, 5), SOURCE]),
    "index_add": (lambda x, i, s: (x.index_add(0, i, s), x.index_add(-1, i, s.T[:4], alpha=2)), [X, torch.tensor([3, 0, 3, 1]), SOURCE]),
    "index_copy": (lambda x, i, s: (x.index_copy(0, i, s[:3]), x.index_fill(1, i, 3.5), x.index_fill(0, i, s[0, 0])), [X, ints(3), SOURCE]),
    "index_reduce": (
        lambda x, i, s: [x.index_reduce(0, i, s, kind, include_self=kind != "mean") for kind in REDUCTIONS if kind != "sum"],
        [X, torch.tensor([3, 0, 3, 3]), SOURCE],
    ),
    "put": (lambda x, i, s: (x.put(i, s), x.put(i, s, accumulate=True)), [X, torch.tensor([[0, 3], [-1, 3]]), rand(2, 2)]),
}
SCATTERS["index_copy"][1][1] = torch.tensor([2, 0, 3])


@pytest.mark.parametrize("name", SCATTERS)
def test_scatters(name: str) -> None:
    function, args = SCATTERS[name]
    check(function, args)


def assigned(x: Tensor, *changes: Callable[[Tensor], Any]) -> list[Tensor]:
    """x after each change to a copy of it."""
    results = []
    for change in changes:
        y = x.clone()
        change(y)
        results.append(y)
    return results


ROWS, COLUMNS = torch.tensor([3, 0, 1]), torch.tensor([-1, 4, 2])
KEEP = bools(4, 5)
KEPT = int(KEEP.sum())


def set_item(key: Any, value: Any) -> Callable[[Tensor], Any]:
    def change(y: Tensor) -> None:
        y[key] = value

    return change


ASSIGNMENTS: dict[str, Callable[[Tensor], Any]] = {
    "rows": lambda x: assigned(x, set_item(ROWS, 1.5), set_item(ROWS, x[:3] * 2), set_item(ROWS.int(), x[0]), set_item(1, x[0])),
    "several indices": lambda x: assigned(
        x, set_item((ROWS, COLUMNS), x[0, :3, 0, None]), set_item((ROWS[:, None], COLUMNS), 0.0), set_item((0, ROWS), x[1, :3])
    ),
    "axes left whole": lambda x: assigned(
        x,
        set_item((slice(None), COLUMNS), x[:, :3]),
        set_item((..., ROWS[:2] - 1), 7.0),
        set_item((ROWS, slice(None), ROWS[:1] - 3), x[0, :5, 0]),
    ),
    "slices": lambda x: assigned(
        x, set_item((slice(1, 3), slice(None, None, 2)), 0.5), set_item((..., -1), 7), set_item(slice(2, None), x[:2])
    ),
    "masks": lambda x: assigned(
        x,
        set_item(KEEP, 2.0),
        set_item(x > 0, -1.0),
        set_item(KEEP[:, 0], x[0]),
        set_item((slice(None), KEEP[0]), 0.0),
        set_item(KEEP, torch.arange(60, dtype=x.dtype).view(20, 3)[:KEPT]),
        set_item(KEEP, x[0, 0]),
    ),
    "accumulation": lambda x: (
        x.index_put((torch.tensor([1, 1, 0]), COLUMNS), x[0, :3], accumulate=True),
        x.index_put((KEEP,), x[0, 0], accumulate=True),
        x.index_put((torch.tensor([1, 1, 0]),), torch.ones((), dtype=x.dtype), accumulate=True),
    ),
    "diagonals": lambda x: (
        x[..., 0].diagonal_scatter(x[0, :4, 1]),
        x.diagonal_scatter(x[0, :4].T, 1, 0, 1),
        x.diagonal_scatter(x[:3, :, 0].T, 0, -1, 0),
        torch.diagonal_scatter(x[0], x[0, :2, 0], -3),
    ),
    "memory": lambda x: (x.as_strided_scatter(x[0, :2], (2, 3), (1, 7), 1), x.transpose(0, 1).as_strided_scatter(x[0], (5, 3), (2, 11))),
    "masked_scatter": lambda x: x.masked_scatter(KEEP[..., None], torch.arange(70, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignments(name: str) -> None:
    check_both_precisions(ASSIGNMENTS[name], [rand(4, 5, 3)])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings(mode: str) -> None:
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.EmbeddingBag(6, 4, mode=mode)
            self.padded = nn.EmbeddingBag(6, 4, mode=mode, padding_idx=1, include_last_offset=True)

        def forward(self, x: Tensor, flat: Tensor, offsets: Tensor, weights: Tensor) -> list[Tensor]:
            results = [self.plain(x), self.plain(flat, offsets), self.padded(flat, offsets)]
            if mode == "sum":
                results.append(self.plain(flat, offsets, weights))
            return results

    offsets = torch.tensor([0, 2, 2, 5, 9])
    check(Bags().eval(), (ints(3, 5, low=0, high=6), ints(9, low=0, high=6), offsets, rand(9)))


def test_repeats_that_add_up_to_a_known_size() -> None:
    repeats = torch.tensor([1, 0, 3])
    check(lambda x, n: (x.repeat_interleave(n, 0, output_size=4), x.repeat_interleave(n[:2], output_size=1, dim=1)), (rand(3, 2), repeats))


def test_positions_made_of_nothing() -> None:
    check(lambda x: (torch.tril_indices(3, 4, 1), torch.triu_indices(3, 4, -1), torch.fft.fftfreq(5), torch.fft.rfftfreq(6, 0.1), x), (X,))


def test_fold() -> None:
    """Patches that overlap are added up."""
    check(
        lambda x, y: (F.fold(x, (9, 8), 3, padding=1), F.fold(y, (9, 8), (2, 3), dilation=(2, 1), padding=(1, 0), stride=(2, 3))),
        (rand(2, 18, 72), rand(18, 10)),
    )
