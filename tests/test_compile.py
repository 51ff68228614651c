"""The public face on models: right results on all kinds of input, and errors that name the problem and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.errors import OptionError


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 24), nn.GELU(), nn.LayerNorm(24), nn.Linear(24, 8)).eval()


def same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


def test_the_first_call_compiles_and_each_new_shape_once_more() -> None:
    model = network()
    fast = mlc.compile(model)
    for rows in (4, 7, 4):
        x = torch.randn(rows, 8)
        same(fast(x), model(x))
    assert len(fast.report().programs) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(33)[1:].reshape(4, 8),
        lambda: torch.randn(8, 4).t(),
        lambda: torch.randn(4, 16)[:, ::2],
        lambda: torch.randn(1, 8).expand(4, 8),
    ],
    ids=["unaligned", "transposed", "every other", "expanded"],
)
def test_views_work(make: Callable[[], Tensor]) -> None:
    model = network()
    fast = mlc.compile(model, example_inputs=(torch.randn(4, 8),), strict=True)
    x = make()
    same(fast(x), model(x))


def test_numpy_in_numpy_out() -> None:
    model = network()
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    result = mlc.compile(model, example_inputs=(torch.from_numpy(x),))(x)
    assert isinstance(result, np.ndarray)
    same(torch.from_numpy(result), model(torch.from_numpy(x)))


def test_structures_constants_and_passed_through_inputs() -> None:
    def function(a: Tensor, *, scale: Tensor, parts: dict[str, Tensor]) -> dict[str, Any]:
        return {"sum": (a * scale).sum(-1), "same": a, "list": [a.t(), parts["b"] + 1], "ones": torch.ones(3), "none": None}

    arguments = {"scale": torch.randn(5), "parts": {"b": torch.arange(6)}}
    a = torch.randn(3, 5)
    result, expected = mlc.compile(function)(a, **arguments), function(a, **arguments)
    assert list(result) == list(expected) and result["none"] is None
    for key in ("sum", "same", "list", "ones"):
        same(result[key], expected[key])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 1).sum(0),
        lambda x: torch.cat([x, x * 2]).shape[0] + x.new_zeros(2),
        lambda x: x.reshape(0, 4, 2).softmax(-1),
    ],
    ids=["reduced", "concatenated", "normalised"],
)
def test_tensors_without_elements(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(0, 8)
    same(mlc.compile(function)(x), function(x))


def test_zero_dimensional_and_integer_tensors() -> None:
    def function(x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        return x * 2 + 1, n // 2, n % 3, n > 1, n.float().mean()

    x, n = torch.tensor(3.0), torch.arange(-5, 10)
    for result, expected in zip(mlc.compile(function)(x, n), function(x, n), strict=True):
        assert result.dtype == expected.dtype
        same(result, expected)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (nn.Sequential(nn.Linear(5, 9), nn.GELU(), nn.Linear(9, 3)).double().eval(), lambda: (torch.randn(2, 5).double(),)),
        (nn.Conv2d(3, 4, 3, padding=1).double().eval(), lambda: (torch.randn(1, 3, 6, 7).double(),)),
        (lambda a, b: a @ b + 1, lambda: (torch.randint(-9, 9, (2, 3, 4)), torch.randint(-9, 9, (4, 5)))),
        (
            nn.Sequential(
                nn.Conv3d(4, 6, 3, padding=1, groups=2), nn.BatchNorm3d(6), nn.ReLU(), nn.ConvTranspose3d(6, 3, 2, stride=2)
            ).eval(),
            lambda: (torch.randn(2, 4, 3, 5, 4),),
        ),
        (lambda q: nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True), lambda: (torch.randn(1, 2, 5, 4).double(),)),
    ],
    ids=["f64 linear", "f64 convolution", "integers", "three axes", "f64 attention"],
)
def test_contractions_beyond_the_fast_templates(function: Callable[..., Tensor], arguments: Callable[[], tuple[Tensor, ...]]) -> None:
    args = arguments()
    result, expected = mlc.compile(function, example_inputs=args, strict=True)(*args), function(*args)
    assert result.dtype == expected.dtype
    same(result, expected)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(12, 12), nn.Conv1d(3, 4, 3), nn.Conv1d(3, 3, 3, groups=3), nn.ConvTranspose1d(3, 4, 3), nn.Softmax(-1)],
    ids=["linear", "convolution", "depthwise", "transposed", "rows"],
)
def test_what_calls_the_c_library_for_each_element_is_no_epilogue(layer: nn.Module) -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        y = layer(x)
        return torch.fmod(y, 0.7), torch.erf(y.double())

    x = torch.randn(2, 3, 12)
    for result, expected in zip(mlc.compile(function)(x), function(x), strict=True):
        same(result, expected)


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, x = network(), torch.randn(4, 8)
    mlc.compile(model, example_inputs=(x,)).save(tmp_path / "net.mlc")
    same(mlc.load(tmp_path / "net.mlc")(x), model(x))


def test_the_same_inputs_give_the_same_bits() -> None:
    x = torch.randn(64, 8)
    fast = mlc.compile(network(), example_inputs=(x,))
    first = fast(x)
    assert all(torch.equal(first, fast(x)) for _ in range(20))


class Unsupported(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).sum() + torch.fft.fft(x).tan().real


def test_unsupported_operations_are_listed_together_with_their_lines() -> None:
    with pytest.raises(mlc.UnsupportedOpError) as caught:
        mlc.compile(Unsupported().eval(), example_inputs=(torch.randn(4, 4),), strict=True)
    message = str(caught.value)
    assert "svd" in message and "tan" in message and "test_compile.py" in message and "torch.linalg.svdvals(x)" in message


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (lambda x: ((x.double(),), {}), "f32"),
        (lambda x: ((torch.randn(4, 9),), {}), "f32[4,8]"),
        (lambda x: ((), {}), "f32[4,8]"),
        (lambda x: ((x,), {"spare": x}), "f32[4,8]"),
    ],
    ids=["dtype", "inner extent", "missing", "unknown keyword"],
)
def test_calls_that_cannot_work_say_what_would(arguments: Callable[[Tensor], tuple[Any, Any]], wanted: str) -> None:
    x = torch.randn(4, 8)
    fast = mlc.compile(network(), example_inputs=(x,), strict=True)
    args, kwargs = arguments(x)
    with pytest.raises(mlc.SignatureError) as caught:
        fast(*args, **kwargs)
    assert wanted in str(caught.value)
    same(fast(x), fast(x))


@pytest.mark.parametrize(
    ("option", "error", "remedy"),
    [
        ({"target": "gpu9000"}, mlc.TargetError, "use 'cpu'"),
        ({"target": "cpu -mcpu=pentium"}, mlc.TargetError, "known"),
        ({"target": "rocm"}, mlc.TargetError, "not yet supported"),
        ({"precision": "w4", "tolerance": 0.1}, OptionError, "precision='auto'"),
        ({"precision": "w5"}, OptionError, "'w4'"),
        ({"precision": {"layers": "w4"}}, OptionError, "'layers' is no module of this model"),
        ({"sparsity": "2:4"}, OptionError, "'auto'"),
        ({"nonfinite": "maybe"}, OptionError, "'strict'"),
        ({"threads": 0}, OptionError, "at least 1"),
        ({"example_inputs": torch.randn(4, 8)}, OptionError, "(x,)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_honoured(option: dict[str, Any], error: type[Exception], remedy: str) -> None:
    with pytest.raises(error) as caught:
        mlc.compile(network(), **{"example_inputs": (torch.randn(4, 8),), **option})
    assert isinstance(caught.value, mlc.Error)
    assert remedy in str(caught.value)


def test_what_is_no_model() -> None:
    with pytest.raises(OptionError, match="cannot compile a dict"):
        mlc.compile({})


def test_infinities_and_nan_are_kept_when_they_are_to_be() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return torch.relu(x), x.max(-1).values, x.clamp(-1, 1), torch.sigmoid(x), x + 0.0, x * 0.0, 0.0 - x, x - x

    x = torch.tensor([[1.0, float("nan"), -float("inf")], [float("inf"), -0.0, 2.0]])
    for result, expected in zip(mlc.compile(function, nonfinite="strict")(x), function(x), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
        assert torch.equal(torch.signbit(result)[~expected.isnan()], torch.signbit(expected)[~expected.isnan()])
