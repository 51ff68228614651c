"""One program for a range of sizes: right at many of them, one compilation, and errors that name input, axis, size and range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import mlc
from mlc.errors import KernelError, SizeError, UnsupportedOpError


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


class Head(nn.Module):
    """A function as a module, for torch.export to bind its dynamic shapes by argument."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def same(actual: Any, expected: Any) -> None:
    """Every result within the accuracy that is promised, measured against float64 by the norm."""
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            same(one, other)
        return
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.dtype.is_floating_point:
        error = (actual.double() - expected.double()).norm() / max(float(expected.double().norm()), 1e-9)
        assert float(error) <= 1e-5
    else:
        assert torch.equal(actual, expected)


def check(model: nn.Module, examples: Callable[..., tuple[Tensor, ...]], shapes: Any, sizes: Sequence[tuple[int, ...]]) -> Any:
    """Compiles ``model`` for the first of ``sizes`` and compares it with PyTorch at all of them."""
    fast = mlc.compile(model, example_inputs=examples(*sizes[0]), dynamic_shapes=shapes)
    for size in sizes:
        inputs = examples(*size)
        same(fast(*inputs), model(*inputs))
    assert len(fast.signatures) == 1
    return fast


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 33), nn.GELU(), nn.LayerNorm(33), nn.Linear(33, 5)).eval()


def test_an_mlp_serves_every_batch_size_of_the_range() -> None:
    sizes = [(4,), *((batch,) for batch in range(1, 41))]
    check(network(), lambda batch: (torch.randn(batch, 12),), ({0: Dim("batch", min=1, max=40)},), sizes)


def test_sizes_outside_of_the_range_are_refused_by_name() -> None:
    fast = mlc.compile(network(), example_inputs=(torch.randn(4, 12),), dynamic_shapes=({0: Dim("batch", min=2, max=40)},))
    with pytest.raises(SizeError, match=r"input 'input' has the size 41 along axis 0; .* for 2 to 40"):
        fast(torch.randn(41, 12))
    with pytest.raises(SizeError, match="size 1 along axis 0"):
        fast(torch.randn(1, 12))
    assert len(fast.signatures) == 1
    with pytest.raises(mlc.Error, match=r"\(5, 3\)|12"):
        fast(torch.randn(5, 3))


def test_numpy_arrays_strided_views_and_profiles_of_any_size() -> None:
    model = network()
    fast = mlc.compile(model, example_inputs=(torch.randn(4, 12),), dynamic_shapes=({0: Dim("batch", min=1, max=40)},))
    x = torch.randn(9, 12)
    expected = model(x)
    np.testing.assert_allclose(fast(x.numpy()), expected.numpy(), rtol=2e-5, atol=2e-5)
    same(fast(torch.randn(12, 9).t().copy_(x)), expected)
    same(fast(torch.cat([torch.randn(1), x.flatten()])[1:].view(9, 12)), expected)
    assert fast.profile(x, calls=2).kernels
    assert "arena" in str(fast.report())


def test_a_program_of_symbolic_sizes_is_saved_and_loaded(tmp_path: Path) -> None:
    model = network()
    mlc.compile(model, example_inputs=(torch.randn(4, 12),), dynamic_shapes=({0: Dim("batch", min=1, max=40)},)).save(tmp_path / "m.mlc")
    loaded = mlc.load(tmp_path / "m.mlc")
    for batch in (1, 7, 40):
        x = torch.randn(batch, 12)
        same(loaded(x), model(x))
    with pytest.raises(SizeError, match="1 to 40"):
        loaded(torch.randn(41, 12))


class Images(nn.Module):
    """Ordinary, depthwise and transposed convolutions, pooling, batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20)
        self.depthwise, self.up = nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.ConvTranspose2d(20, 8, 2, stride=2)
        self.head = nn.Linear(8, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.stem(x))), 2)
        x = F.avg_pool2d(torch.relu(self.up(x + self.depthwise(x))), 3, 2, 1)
        return self.head(x.mean((2, 3)))


def test_images_in_batches_of_any_size() -> None:
    check(
        Images().eval(), lambda batch: (torch.randn(batch, 3, 9, 9),), ({0: Dim("batch", min=1, max=16)},), [(3,), (1,), (2,), (8,), (16,)]
    )


class Decoder(nn.Module):
    """Self-attention of two heads, causal or with a mask of the tokens that count."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 32), nn.Embedding(64, 32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.causal = causal

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        batch, length = ids.shape
        x = self.tokens(ids) + self.places(torch.arange(length))
        q, k, v = (part.view(batch, length, 2, 16).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        if self.causal:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool()[:, None, None, :])
        return x + self.out(attended.transpose(1, 2).reshape(batch, length, 32))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_over_any_batch_and_length(causal: bool) -> None:
    def examples(batch: int, length: int) -> tuple[Tensor, Tensor]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[0, length // 2 :] = 0
        return torch.randint(0, 50, (batch, length)), mask

    axes = {0: Dim("batch", min=1, max=5), 1: Dim("length", min=2, max=64)}
    sizes = [(2, 9), (1, 2), (5, 64), (3, 15), (1, 16), (2, 17), (1, 33), (4, 31), (1, 48)]
    fast = check(Decoder(causal).eval(), examples, (axes, axes), sizes)
    ids, mask = examples(2, 9)
    with pytest.raises(SizeError, match=r"input 'mask' has the size 8 along axis 1, where 9 is needed.*axis 1 of 'ids'"):
        fast(ids, mask[:, :8])


def _rows(x: Tensor, y: Tensor) -> Any:
    total = x.sum(1)
    return x.softmax(1), x.mean(1), total.cumsum(0), x.amax((0, 1)), x.argmax(1), x / x.norm(dim=1, keepdim=True), y.softmax(-1), y.sum(-1)


def _moves(x: Tensor, y: Tensor) -> Any:
    batch, length, _ = x.shape
    causal = torch.arange(length)[:, None] >= torch.arange(length)
    joined = torch.cat([x, y.transpose(1, 2)], 1)
    flat = x.reshape(batch * length, 6).t()
    return joined, x.flip(1), x[:, 1:], flat, causal & (x[:, :, :1] > 0), F.pad(x, (0, 0, 2, 1)), x.permute(2, 1, 0)


def _products(x: Tensor, y: Tensor) -> Any:
    scores = torch.matmul(x, y)
    weights = (scores * 0.5).softmax(-1)
    return scores, torch.matmul(weights, x), torch.einsum("bld,bdm->bm", x, y), (x.long() @ y.long())


@pytest.mark.parametrize("function", [_rows, _moves, _products])
def test_operations_along_symbolic_axes(function: Callable[[Tensor, Tensor], Any]) -> None:
    batch, length = Dim("batch", min=1, max=9), Dim("length", min=3, max=70)

    def examples(batch: int, length: int) -> tuple[Tensor, Tensor]:
        return torch.randn(batch, length, 6), torch.randn(batch, 6, length)

    sizes = [(3, 10), (1, 3), (9, 70), (2, 16), (5, 17), (1, 33), (4, 64), (7, 4)]
    check(Head(function).eval(), examples, ({0: batch, 1: length}, {0: batch, 2: length}), sizes)


def test_unrelated_and_derived_sizes() -> None:
    half = Dim("half", min=2, max=20)

    def function(x: Tensor, y: Tensor) -> Any:
        pairs = x.view(x.shape[0] // 2, 2, x.shape[1]).sum(1)
        return pairs, y * 2, (pairs.unsqueeze(0) + y.unsqueeze(1))[..., 0]

    fast = check(
        Head(function).eval(),
        lambda h, n: (torch.randn(2 * h, 5), torch.randn(n, 5)),
        ({0: 2 * half}, {0: Dim("rows", min=1)}),
        [(3, 4), (2, 1), (20, 100), (7, 33)],
    )
    with pytest.raises(SizeError, match="4 to 40 in steps of 2"):
        fast(torch.randn(7, 5), torch.randn(3, 5))


def test_tensors_too_large_for_the_kernels_are_refused() -> None:
    fast = mlc.compile(
        Head(lambda x, y: x[:, None] > y).eval(),
        example_inputs=(torch.randn(4), torch.randn(3)),
        dynamic_shapes=({0: Dim("rows", min=1)}, {0: Dim("columns", min=1)}),
    )
    x, y = torch.randn(5), torch.randn(7)
    same(fast(x, y), x[:, None] > y)
    with pytest.raises(KernelError, match=r"2\*\*31 elements"):
        fast(torch.ones(50000), torch.ones(50000))


def test_what_has_no_code_for_symbolic_sizes_says_so() -> None:
    with pytest.raises(UnsupportedOpError, match=r"aten\.sort"):
        mlc.compile(
            Head(lambda x, y: (x + y).sort(-1)).eval(),
            example_inputs=(torch.randn(3, 4), torch.randn(3, 4)),
            dynamic_shapes=({1: Dim("n", min=2, max=9)}, {1: Dim("n", min=2, max=9)}),
            strict=True,
        )


class Counting(nn.Module):
    """Adds how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * 2 + self.calls


def test_a_state_of_fixed_size_beside_inputs_of_any() -> None:
    fast = mlc.compile(Counting(), example_inputs=(torch.randn(4, 3),), dynamic_shapes=({0: Dim("batch", max=64)},), strict=True)
    for count, batch in enumerate((4, 1, 64), start=1):
        x = torch.randn(batch, 3)
        with torch.inference_mode():
            torch.testing.assert_close(fast(x), x * 2 + count)
