"""Recurrent layers and PyTorch's control flow as native programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import mlc


def check(model: nn.Module, *args: Any) -> mlc.CompiledModel:
    """The compiled model, after holding it to the accuracy promised against float64."""
    with torch.no_grad():
        fast = mlc.compile(model, example_inputs=args)
        doubles = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]
        actual, eager = _tensors(fast(*args)), _tensors(model(*args))
        expected = _tensors(model.double()(*doubles))
        model.float()
    for got, plain, truth in zip(actual, eager, expected, strict=True):
        assert got.shape == plain.shape and got.dtype is plain.dtype
        error, usual = ((value.double() - truth).norm() / truth.norm() for value in (got, plain))
        assert error <= max(10 * usual, 1e-5)
    return fast


def _tensors(tree: Any) -> list[Tensor]:
    return [tree] if isinstance(tree, Tensor) else [leaf for item in tree for leaf in _tensors(item)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.LSTM(8, 16, num_layers=2, bidirectional=True),
        lambda: nn.GRU(8, 12, batch_first=True),
        lambda: nn.RNN(8, 16, nonlinearity="relu", bias=False),
    ],
)
def test_layers(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    check(build().eval(), torch.randn(6, 3, 8))


def test_long_sequences_have_as_many_kernels_as_short_ones() -> None:
    torch.manual_seed(0)
    model = nn.GRU(8, 16).eval()
    kernels = [check(model, torch.randn(length, 1, 8)).report().programs[0].kernels for length in (5, 70)]
    assert len(kernels[0]) == len(kernels[1])
    assert max(kernel.runs for kernel in kernels[1]) == 70


class Cells(nn.Module):
    """A scan of a cell, after a loop that counts at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor, rounds: Tensor) -> Any:
        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            after = torch.tanh(self.layer(state) + x)
            return after, after * 2

        _, start = while_loop(lambda i, h: i > 0, lambda i, h: (i - 1, self.layer(h)), (rounds.clone(), x[0]))
        return scan(step, start, x)


def test_scans_and_while_loops() -> None:
    torch.manual_seed(0)
    for rounds in (0, 3):
        check(Cells().eval(), torch.randn(5, 2, 6), torch.tensor(rounds))


class Unrolled(nn.Module):
    """A cell in a loop of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.from_input, self.from_state = nn.Linear(8, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 16)
        states = []
        for step in range(x.shape[1]):
            h = torch.tanh(self.from_input(x[:, step]) + self.from_state(h))
            states.append(h)
        return torch.stack(states, 1)


def test_the_rounds_of_an_unrolled_loop_share_their_kernels() -> None:
    torch.manual_seed(0)
    counts = []
    for length in (8, 16):
        (program,) = check(Unrolled().eval(), torch.randn(2, length, 8)).report().programs
        assert len(program.kernels) >= length
        counts.append(len({kernel.symbol for kernel in program.kernels}))
    assert counts[0] == counts[1] <= 5
