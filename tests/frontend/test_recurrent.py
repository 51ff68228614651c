"""Recurrent layers and cells become loops that compute what PyTorch does, whatever the options."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from eager import check, rand
from torch import Tensor, nn

from mlc.frontend import Imported


def loops(imported: Imported) -> list[Any]:
    return [node for node in imported.graph.nodes if node.op == "loop"]


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"batch_first": True, "bias": False}),
        (nn.LSTM, {"proj_size": 3, "bidirectional": True}),
        (nn.LSTM, {"proj_size": 3, "bias": False, "num_layers": 2, "dropout": 0.5}),
        (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
        (nn.GRU, {"bias": False}),
        (nn.RNN, {"num_layers": 2}),
        (nn.RNN, {"nonlinearity": "relu", "bidirectional": True, "bias": False}),
    ],
    ids=str,
)
def test_layers(layer: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = layer(6, 5, **options).eval()
    found = loops(check(model, [rand(4, 2, 6)]))
    assert len(found) == options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)


@pytest.mark.parametrize("shape", [(3, 6), (1, 1, 6)], ids=str)
def test_unbatched_and_single_steps(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check(nn.LSTM(6, 5, bidirectional=True).eval(), [rand(*shape)])


def test_given_states_and_doubles() -> None:
    torch.manual_seed(0)
    x = rand(7, 2, 6)
    check(nn.GRU(6, 5).eval(), [x, rand(1, 2, 5)])
    check(nn.LSTM(6, 5, 2).double().eval(), [x.double(), (rand(2, 2, 5).double(), rand(2, 2, 5, seed=1).double())])


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(cell: Any, bias: bool) -> None:
    torch.manual_seed(0)
    model = cell(6, 5, bias=bias)
    state = (rand(3, 5), rand(3, 5, seed=1)) if isinstance(model, nn.LSTMCell) else rand(3, 5)
    check(model, [rand(3, 6)])
    check(model, [rand(3, 6), state])
    check(model, [rand(6)])


def test_the_graph_does_not_grow_with_the_length() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.rnn(x)[0][:, -1])
            return y

    model = Tagger().eval()
    assert len(list(check(model, [rand(2, 3, 6)]).graph.walk())) == len(list(check(model, [rand(2, 12, 6)]).graph.walk()))
