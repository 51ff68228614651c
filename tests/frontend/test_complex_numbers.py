"""Complex numbers as pairs of real ones, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from eager import check_both_precisions, rand
from torch import Tensor, nn

import mlc

Pair = Callable[[Tensor, Tensor], Any]


def parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z.resolve_conj())


ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "sums": lambda z, w: (z + w, z - w, z + 2, 1j - z, torch.add(z, w, alpha=2), z + w.real, w.imag - z, -z),
    "products": lambda z, w: (z * w, z * 1j, 2.5 * z, z * w.real, z[:1] * w, z.square(), z**3, z**-2, z**0),
    "quotients": lambda z, w: (z / w, z / 2, 1 / z, z / w.abs(), z.reciprocal(), 2j / z, z.sgn()),
    "conjugates": lambda z, w: (z.conj(), z.conj() * w, z.conj_physical(), z.mH, z.real, z.imag, z.conj().imag, z.abs()),
    "functions": lambda z, w: (z.exp(), z.sqrt(), (z * 0).sqrt(), (-z.abs() + 0j).sqrt()),
    "reductions": lambda z, w: (z.sum(), z.sum(1), z.mean(0), z.mean(), z.cumsum(1), torch.linalg.vector_norm(z), z.norm(dim=1)),
    "matrices": lambda z, w: (
        z @ w.T,
        z @ w[0],
        torch.einsum("ij,kj->ik", z, w),
        torch.bmm(z[None], w.T[None]),
    ),
    "shapes": lambda z, w: (
        z.reshape(-1),
        z.T,
        z[:, 1:3],
        z[1],
        z[None].expand(2, -1, -1),
        z.flip(0),
        z.roll(1, 0),
        z.unbind(1),
        z.split(2, 1),
    ),
    "joining": lambda z, w: (torch.cat([z, w]), torch.stack([z, w], -1), torch.where(z.real > 0, z, w), torch.where(z.real > 0, z, 0.0)),
    "indexing": lambda z, w: (z[torch.tensor([2, 0])], z.index_select(1, torch.tensor([1, 1])), z.index_put((torch.tensor([1]),), w[0])),
    "creation": lambda z, w: (
        torch.zeros_like(z),
        torch.ones_like(z),
        torch.full_like(z, 1 + 2j),
        torch.complex(z.real, w.real),
        z.clone(),
    ),
    "comparison": lambda z, w: ((z == w).float(), (z != w.conj().conj()).float(), z.isnan().float()),
    "dtypes": lambda z, w: (z.to(torch.complex128), z.real.to(torch.complex64), torch.zeros(3, dtype=z.dtype) + z[:, :1].T),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str) -> None:
    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        results = torch.utils._pytree.tree_leaves(ARITHMETIC[name](torch.complex(x, y), torch.complex(y, x[:1])))
        return [parts(result) if result.is_complex() else result.resolve_neg() for result in results]

    check_both_precisions(function, (rand(3, 4), rand(3, 4, seed=1)))


class Rotary(nn.Module):
    """Rotary embeddings as the reference code of Llama and DeepSeek-V2 writes them."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.polar(torch.ones(5, 4), rand(5, 4)), persistent=False)

    def forward(self, q: Tensor) -> Tensor:
        z = torch.view_as_complex(q.float().reshape(*q.shape[:-1], -1, 2))
        return torch.view_as_real(z * self.frequencies[:, None]).flatten(3).type_as(q)


def test_programs_take_and_return_complex_tensors() -> None:
    model = Rotary().eval()

    def function(z: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return z * 2j, model(q), torch.polar(z.abs(), z.imag)

    z, q = torch.complex(rand(3, 4), rand(3, 4, seed=2)), rand(2, 5, 3, 8)
    fast = mlc.compile(function, example_inputs=(z, q), strict=True)
    for argument in (z, z.conj(), z.T.reshape(3, 4)):
        for result, expected in zip(fast(argument, q), function(argument, q), strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_what_is_not_known_of_complex_numbers_is_named() -> None:
    with pytest.raises(mlc.UnsupportedOpError, match=r"aten.tan.default of complex numbers"):
        mlc.compile(lambda x: torch.complex(x, x).tan().real, example_inputs=(rand(3),), strict=True)
