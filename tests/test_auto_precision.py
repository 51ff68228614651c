"""precision="auto" through the public face: the tolerance holds on inputs that had no part in the choice, else the answer is fp32."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.errors import DeviceUnavailableError, OptionError, PrecisionWarning
from mlc.runtime.precision_report import PrecisionReport

TOLERANCE = 1e-2


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(256, 256) for _ in range(4))
        self.norm = nn.LayerNorm(256)
        self.feed = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, 64)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.feed(self.norm(x + self.out(attended)))


class Language(nn.Module):
    """Indices in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(300, 256)
        self.block = Attention()
        self.head = nn.Linear(256, 300, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


class IllConditioned(nn.Module):
    """Logits that are the small differences of large numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(512, 512), nn.Linear(512, 512)
        self.right.weight.data = self.left.weight + 1e-5 * torch.randn(512, 512)
        self.right.bias.data = self.left.bias.clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) - self.right(x)


def perceptron() -> tuple[nn.Module, Callable[[], Tensor]]:
    return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 64)), lambda: torch.randn(
        1, 512
    )


def attention() -> tuple[nn.Module, Callable[[], Tensor]]:
    return Attention(), lambda: torch.randn(1, 8, 256)


def language() -> tuple[nn.Module, Callable[[], Tensor]]:
    return Language(), lambda: torch.randint(0, 300, (1, 6))


def gated() -> tuple[nn.Module, Callable[[], Tensor]]:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(512, 1024), nn.Linear(512, 1024), nn.Linear(1024, 512)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(nn.functional.silu(self.gate(x)) * self.up(x))

    return Gated(), lambda: torch.randn(2, 512)


def error_of(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("make", "calibrated", "tolerance"),
    [
        (perceptron, False, 1e-2),
        (perceptron, True, 1e-3),
        (attention, True, 1e-2),
        (language, False, 1e-2),
        (gated, True, 5e-2),
    ],
)
def test_the_tolerance_holds_on_other_inputs(
    make: Callable[[], tuple[nn.Module, Callable[[], Tensor]]], calibrated: bool, tolerance: float
) -> None:
    model, draw = make()
    model.eval()
    calibration = [(draw(),) for _ in range(4)] if calibrated else None
    options = {"precision": "auto", "tolerance": tolerance, "calibration": calibration, "threads": 1, "strict": True}
    fast = mlc.compile(model, example_inputs=(draw(),), **options)
    report = fast.report().precision
    assert report is not None and 0 < report.error <= tolerance
    assert any(layer.mode != "fp32" for layer in report.layers)
    assert report.seconds < report.fp32_seconds
    assert (report.samples, report.held_out) == ((4, 2) if calibrated else (3, 1))
    for _ in range(4):
        x = draw()
        assert error_of(fast(x), model(x)) <= tolerance
    assert "precision auto" in str(fast.report())
    assert json.dumps(fast.report().to_dict())


def test_a_tolerance_that_cannot_be_met_gives_fp32_and_says_so() -> None:
    model = IllConditioned().eval()
    x = torch.randn(1, 512)
    with pytest.warns(PrecisionWarning, match="cannot be met"):
        fast = mlc.compile(model, example_inputs=(x,), precision="auto", tolerance=TOLERANCE, threads=1)
    report = fast.report().precision
    assert report is not None and report.error == 0.0
    assert {layer.mode for layer in report.layers} == {"fp32"} and "cannot be met" in report.note
    exact = mlc.compile(model, example_inputs=(x,), threads=1)
    assert torch.equal(fast(x), exact(x))


@pytest.mark.parametrize("target", ["cpu -mcpu=znver4 -threads=1", "cpu -mcpu=sapphirerapids -threads=1"])
def test_modes_for_a_device_that_is_absent_are_simulated(target: str) -> None:
    model, draw = perceptron()
    fast = mlc.compile(model.eval(), example_inputs=(draw(),), precision="auto", tolerance=TOLERANCE, target=target)
    report = fast.report().precision
    assert report is not None and 0 < report.error <= TOLERANCE
    assert any(layer.mode != "fp32" for layer in report.layers)
    try:
        assert error_of(fast(x := draw()), model(x)) <= TOLERANCE
        assert not report.note
    except DeviceUnavailableError:
        assert "absent" in report.note


def test_a_smaller_tolerance_is_kept() -> None:
    model, draw = perceptron()
    errors = []
    for tolerance in (1e-1, 1e-3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrecisionWarning)
            fast = mlc.compile(model.eval(), example_inputs=(draw(),), precision="auto", tolerance=tolerance, threads=1)
        x = draw()
        errors.append(error_of(fast(x), model(x)))
        assert errors[-1] <= tolerance
    assert errors[1] < errors[0]


def test_one_decision_serves_all_signatures_until_weights_change() -> None:
    model, _ = perceptron()
    fast = mlc.compile(model.eval(), precision="auto", tolerance=TOLERANCE, threads=1)
    for rows in (1, 2):
        x = torch.randn(rows, 512)
        assert error_of(fast(x), model(x)) <= TOLERANCE
    first = fast.report().precision
    assert len(fast.report().programs) == 2
    model[0].weight.mul_(2.0)
    x = torch.randn(1, 512)
    with pytest.warns(UserWarning, match="compiled again"):
        result = fast(x)
    assert error_of(result, model(x)) <= TOLERANCE
    assert fast.report().precision is not first


def test_a_decision_is_found_again_for_the_same_model_tolerance_and_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    model, draw = gated()
    given, x = [(draw(),), (draw(),)], draw()

    def report(tolerance: float = 5e-2, calibration: list[tuple[Tensor, ...]] = given) -> PrecisionReport:
        fast = mlc.compile(model, example_inputs=(x,), precision="auto", tolerance=tolerance, calibration=calibration, threads=1)
        assert error_of(fast(x), model(x)) <= tolerance
        found = fast.report().precision
        assert found is not None
        return found

    first = report()
    assert first.search_seconds > 0
    again = report()
    assert again.search_seconds == 0 and "earlier search" in str(again)
    assert replace(again, search_seconds=first.search_seconds) == first
    assert report(tolerance=4e-2).search_seconds > 0
    assert report(calibration=[(draw(),), (draw(),)]).search_seconds > 0
    model.down.weight.mul_(1.5)
    assert report().search_seconds > 0


def test_a_damaged_decision_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    model, x = nn.Linear(1024, 1024).eval(), torch.randn(1, 1024)
    options = {"example_inputs": (x,), "precision": "auto", "tolerance": TOLERANCE, "threads": 1}
    mlc.compile(model, **options)
    (kept,) = tmp_path.rglob("*.precision")
    kept.write_text('{"modes": [["", "w1000"]], "report": {"layers": []}}')
    report = mlc.compile(model, **options).report().precision
    assert report is not None and report.search_seconds > 0


def test_sizes_that_vary() -> None:
    model = nn.Linear(1024, 1024).eval()
    dynamic = ({0: torch.export.Dim("rows", min=1, max=8)},)
    fast = mlc.compile(
        model, example_inputs=(torch.randn(2, 1024),), dynamic_shapes=dynamic, precision="auto", tolerance=TOLERANCE, threads=1
    )
    assert fast.report().precision is not None
    for rows in (1, 2, 5):
        x = torch.randn(rows, 1024)
        assert error_of(fast(x), model(x)) <= TOLERANCE


def test_keyword_arguments_and_states() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1024, 1024)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, *, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return self.layer(x)

    model = Counting().eval()
    fast = mlc.compile(model, example_kwargs={"x": torch.randn(1, 1024)}, precision="auto", tolerance=TOLERANCE, threads=1)
    assert model.calls.item() == 0, "verifying is no call"
    x = torch.randn(1, 1024)
    assert error_of(fast(x=x), model.layer(x)) <= TOLERANCE
    assert model.calls.item() == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "auto", "tolerance": 0}, "relative error"),
        ({"precision": "auto", "tolerance": "small"}, "relative error"),
        ({"tolerance": 0.1}, "precision='auto'"),
        ({"precision": {"0": "auto"}}, "whole model"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        mlc.compile(nn.Linear(4, 4), **options)  # type: ignore[arg-type]
