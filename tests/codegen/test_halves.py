"""Numbers of 16 bits: every operation is rounded as PyTorch rounds it, sums are made in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import mlc

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@HALVES
def test_elementwise_operations_give_the_same_bits(dtype: torch.dtype) -> None:
    def function(x: Tensor, y: Tensor, n: Tensor) -> list[Tensor]:
        total = (x * y + x) / (y.abs() + 0.3) - 0.1
        moved = torch.cat([x.T.reshape(-1), nn.functional.pad(y[0], (1, 1), value=0.1)])[::2]
        return [
            total,
            x.float() * y,
            torch.where(x > y, x, y).clamp(-0.7, 0.7),
            n.to(dtype) * 3,
            total.to(torch.int32),
            moved,
            x.to(torch.float64),
        ]

    x, y, n = rand(37, 5).to(dtype), rand(37, 5, seed=1).to(dtype), torch.arange(4090, 4110)
    x[0, :4] = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0])
    fast = mlc.compile(function, example_inputs=(x, y, n), strict=True, nonfinite="strict")
    for result, expected in zip(fast(x, y, n), function(x, y, n), strict=True):
        assert result.dtype is expected.dtype
        if expected.dtype is torch.int32:  # what becomes of infinities is not defined
            result, expected = result[1:], expected[1:]
        assert torch.equal(result.nan_to_num(7), expected.nan_to_num(7))


@HALVES
def test_a_network_of_halves_is_as_accurate_as_eager(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.GELU())
    model = nn.Sequential(*head, nn.LayerNorm(16), nn.Linear(16, 9), nn.Softmax(-1)).to(dtype).eval()
    x = rand(2, 3, 6, 6).to(dtype)
    with torch.no_grad():
        result, eager = mlc.compile(model, example_inputs=(x,), strict=True)(x).double(), model(x).double()
        exact = model.double()(x.double())
    assert (result - exact).norm() <= max(2 * (eager - exact).norm(), 1e-3 * exact.norm())


def test_halves_inside_a_model_of_single_precision() -> None:
    inner = nn.Linear(6, 7).half().eval()

    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = inner(x.half()).float()
        return (
            y,
            x.bfloat16().sum(0).float(),
            x.half().cumsum(1),
            x.bfloat16().sort(-1)[0],
            x.half().max(-1)[0].float() + 1,
            x.bfloat16().argmax(1),
        )

    x = rand(5, 6)
    with torch.no_grad():
        for result, expected in zip(mlc.compile(function, example_inputs=(x,), strict=True)(x), function(x), strict=True):
            torch.testing.assert_close(result, expected, rtol=2e-3, atol=2e-3)
