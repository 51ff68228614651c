"""PyTorch's control flow operators against their eager results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import check, rand
from torch import Tensor, nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from mlc.errors import UnsupportedOpError
from mlc.frontend import import_model


class Model(nn.Module):
    """A module around a function of itself and the arguments; ``layer`` is a linear layer it may use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.function = function

    def forward(self, *args: Tensor) -> Any:
        return self.function(self, *args)


def ops(model: nn.Module, *args: Tensor) -> list[str]:
    """The control flow and other operations at the top of the imported graph, after comparing with eager PyTorch."""
    return [node.op for node in check(model, args).graph.nodes]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond(sign: float) -> None:
    model = Model(lambda m, x, y: torch.cond(x.sum() > 0, lambda x, y: (m.layer(x), y * 2), lambda x, y: (x - y, torch.exp(y)), (x, y)))
    assert "cond" in ops(model, sign * rand(3, 4).abs(), rand(3, 4, seed=1))


def test_nested_cond() -> None:
    def inner(x: Tensor) -> Any:
        return torch.cond(x.max() > 1, lambda x: x + 1, lambda x: x.cos(), (x,))

    model = Model(lambda m, x: torch.cond(x.sum() > 0, inner, lambda x: x * 3, (x,)))
    for x in (rand(3, 4).abs(), rand(3, 4).abs() + 1, -rand(3, 4).abs()):
        check(model, [x])


def test_while_loop() -> None:
    def loop(m: Model, start: Tensor, x: Tensor) -> Any:
        return while_loop(lambda i, x: (i < 5) & (x.abs().max() < 1e3), lambda i, x: (i + 1, m.layer(x)), (start.clone(), x))

    for start in (0, 4, 7):
        assert "while" in ops(Model(loop), torch.tensor(start), rand(3, 4))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dim", [0, 1])
def test_scan(reverse: bool, dim: int) -> None:
    def run(m: Model, x: Tensor) -> Any:
        def step(state: tuple[Tensor, Tensor], x: Tensor) -> Any:
            h = torch.tanh(m.layer(state[0]) + x)
            return (h.clone(), state[1] + 1), (h * 2, state[1].clone())

        return scan(step, (torch.zeros(2, 4), torch.zeros((), dtype=torch.int64)), x, dim=dim, reverse=reverse)

    assert "loop" in ops(Model(run), rand(*((5, 2, 4) if dim == 0 else (2, 5, 4))))


def test_map() -> None:
    assert "loop" in ops(Model(lambda m, x, y: map_over(lambda x, y: m.layer(x) @ y, x, y)), rand(5, 2, 4), rand(4, 3))


def test_associative_scan() -> None:
    check(Model(lambda m, x: associative_scan(lambda a, b: a * b + a, x, dim=0, combine_mode="generic")), [rand(9, 4)])


def test_flex_attention() -> None:
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 8, 8, device="cpu")
    bias = rand(2, 8, 8)

    def attend(m: Model, q: Tensor, k: Tensor) -> Any:
        first = flex_attention(q, k, k, score_mod=lambda s, b, h, i, j: torch.where(i >= j, s + 0.1 * h, -1e9))
        return first, flex_attention(
            q, k[:, :1], k[:, :1], score_mod=lambda s, b, h, i, j: s + bias[h, i, j], block_mask=mask, enable_gqa=True
        )

    check(Model(attend), [rand(2, 2, 8, 4), rand(2, 2, 8, 4, seed=1)])


def test_grad_mode_and_autocast_are_inlined() -> None:
    def run(m: Model, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = m.layer(x)
        with torch.autocast("cpu", enabled=False):
            result: Tensor = m.layer(y)
        return result

    assert ops(Model(run), rand(3, 4)).count("linear") == 2


def test_operations_inside_regions_are_reported() -> None:
    model = Model(lambda m, x: torch.cond(x.sum() > 0, lambda x: x + torch.rand(3, 4), lambda x: x + 1, (x,)))
    with pytest.raises(UnsupportedOpError, match="rand"):
        import_model(model, [rand(3, 4)])
