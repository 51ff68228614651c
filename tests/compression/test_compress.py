"""mlc.compress through the public face: what replaces a layer, how near it comes, and that the result is an ordinary module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.compression import LowRankLinear, MonarchLinear
from mlc.errors import OptionError

TARGET = "cpu -mcpu=znver3 -threads=2"


def linear(weight: Tensor, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    layer.weight.data = weight
    return layer


def low_rank_weight(rank: int, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, rank) @ torch.randn(rank, columns) / (rank * columns) ** 0.5


def monarch_weight(blocks: int, width: int) -> Tensor:
    """By its definition: M[(o, l), (i, j)] = L[l, o, i] R[i, l, j]."""
    part = width // blocks
    right, left = torch.randn(blocks, blocks, part), torch.randn(blocks, part, blocks)
    return torch.einsum("loi,ilj->olij", left, right).reshape(width, width) / width**0.5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def error_of(layer: nn.Module, original: nn.Linear, x: Tensor) -> float:
    """Relative, of results without the bias."""
    expected = x.double() @ original.weight.double().T
    bias = original.bias.double() if original.bias is not None else 0.0
    return ((layer.double()(x.double()) - bias - expected).norm() / expected.norm()).item()


def test_auto_takes_the_form_that_a_weight_has_and_leaves_the_others_alone() -> None:
    blocks = {
        "low": linear(low_rank_weight(16, 512, 512)),
        "monarch": linear(monarch_weight(16, 512), bias=False),
        "full": nn.Linear(512, 512),
    }
    model = nn.Sequential(*(layer for each in blocks.values() for layer in (each, nn.GELU())))
    # On one thread fewer blocks, which are less arithmetic, are the quicker ones; on two the predictions for 16 and 32 are close.
    compressed, report = mlc.compress(model, error=1e-3, target="cpu -mcpu=znver3 -threads=1")
    assert isinstance(compressed[0], LowRankLinear) and compressed[0].rank == 16
    assert isinstance(compressed[2], MonarchLinear) and (compressed[2].blocks, compressed[2].rank) == (16, 1)
    assert type(compressed[4]) is nn.Linear
    assert [layer.form for layer in report.layers] == ["low-rank 16", "monarch 16x16 rank 1", "dense"]
    assert "within the bound" in report.layers[2].reason
    x = torch.randn(7, 512)
    torch.testing.assert_close(compressed(x), model(x), rtol=1e-4, atol=1e-4)
    assert all(type(module) is nn.Linear for module in model[::2]), "the original stays as it is"


@pytest.mark.parametrize("method", ["low-rank", "monarch"])
def test_each_method_by_itself(method: str) -> None:
    weight = low_rank_weight(8, 512, 512) if method == "low-rank" else monarch_weight(8, 512)
    model = nn.Sequential(linear(weight + 1e-3 * torch.randn_like(weight)))
    compressed, report = mlc.compress(model, method=method, error=0.3, target=TARGET)
    assert report.layers[0].form.startswith(method)
    assert 0 < report.layers[0].error <= 0.3
    difference = compressed[0].weight - model[0].weight
    assert report.layers[0].error == pytest.approx(float((difference.norm() / model[0].weight.norm()).detach()), rel=1e-4)


def test_the_report_counts_what_the_modules_hold() -> None:
    model = nn.Sequential(linear(low_rank_weight(8, 512, 256)), nn.ReLU(), nn.Linear(512, 4))
    compressed, report = mlc.compress(model, target=TARGET)
    assert report.parameters_before == sum(parameter.numel() for parameter in model.parameters())
    assert report.parameters_after == sum(parameter.numel() for parameter in compressed.parameters()) < report.parameters_before
    assert report.seconds_after < report.seconds_before
    assert report.layers[0].path == "0" and "low-rank 8" in str(report)


def test_calibration_finds_the_directions_that_inputs_have() -> None:
    """The weight is of full rank, but inputs lie (almost) in a space of few dimensions: only calibration can know."""
    basis = torch.randn(12, 512)
    model = nn.Sequential(nn.Linear(512, 512))

    def batch(rows: int) -> Tensor:
        return torch.randn(rows, 12) @ basis + 1e-3 * torch.randn(rows, 512)

    blind = mlc.compress(model, method="low-rank", error=0.01, example_inputs=(batch(64),), target=TARGET)
    assert blind.report.layers[0].form == "dense"
    batches = [batch(64) for _ in range(4)]
    compressed, report = mlc.compress(model, method="low-rank", error=0.01, calibration=batches, target=TARGET)
    assert report.layers[0].form == "low-rank 16" and report.layers[0].rows == 64
    assert report.model_error is not None and report.model_error <= 0.01
    assert error_of(compressed[0], model[0], batch(256)) <= 0.015, "inputs that it was not calibrated on"


def test_too_few_rows_do_not_vouch_for_a_bound() -> None:
    """Sixteen rows of a full-rank layer could be fitted without error by rank 16; the rows held out show that it is worthless."""
    model = nn.Sequential(nn.Linear(512, 512))
    _, report = mlc.compress(model, error=0.05, calibration=[torch.randn(32, 512)], target=TARGET)
    assert report.layers[0].form == "dense"


def test_calibrated_monarch_uses_the_second_moment() -> None:
    """Fitted to correlated inputs, factors of the same size have a smaller error on such inputs than the projection of the weight alone."""
    mixing = torch.randn(512, 512) * torch.logspace(0, -3, 512)[:, None]
    weight = monarch_weight(16, 512)
    model = nn.Sequential(linear(weight + 0.2 * weight.std() * torch.randn_like(weight)))
    batches = [torch.randn(512, 512) @ mixing for _ in range(4)]
    fitted = mlc.compress(model, method="monarch", error=0.5, calibration=batches, target=TARGET)
    plain = mlc.compress(model, method="monarch", error=0.5, example_inputs=(batches[0],), target=TARGET)
    assert fitted.report.layers[0].form == plain.report.layers[0].form == "monarch 16x16 rank 1"
    x = torch.randn(512, 512) @ mixing
    assert error_of(fitted.model[0], model[0], x) < 0.95 * error_of(plain.model[0], model[0], x)


def test_shared_and_nested_layers_are_replaced_wherever_they_stand() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = linear(low_rank_weight(8, 512, 512))
            self.inner = nn.ModuleDict({"again": self.first})

        def forward(self, x: Tensor) -> Tensor:
            return self.inner["again"](torch.relu(self.first(x)))

    compressed, report = mlc.compress(Shared(), target=TARGET)
    assert len(report.layers) == 1
    assert isinstance(compressed.first, LowRankLinear) and compressed.inner["again"] is compressed.first


def test_layers_that_others_look_into_stay() -> None:
    """The projection of nn.MultiheadAttention is of a class of its own, which the attention reads the weight of."""
    model = nn.MultiheadAttention(512, 4, batch_first=True)
    model.out_proj.weight.data = low_rank_weight(8, 512, 512)
    compressed, report = mlc.compress(model, target=TARGET)
    assert report.layers == () and type(compressed.out_proj) is type(model.out_proj)


def test_layers_of_unlucky_shapes_and_values() -> None:
    broken = nn.Linear(512, 512)
    broken.weight.data[0, 0] = float("nan")
    zero = linear(torch.zeros(512, 512))
    _, report = mlc.compress(nn.Sequential(broken, zero, nn.Linear(512, 7), nn.Linear(7, 0)), target=TARGET)
    assert "not finite" in report.layers[0].reason
    assert report.layers[1].error == 0.0 and report.layers[1].form != "dense"
    assert report.layers[2].form == "dense" and len(report.layers) == 3


def test_an_unreached_layer_stays_when_there_is_calibration() -> None:
    model = nn.ModuleDict({"used": linear(low_rank_weight(8, 512, 512)), "idle": linear(low_rank_weight(8, 512, 512))})
    model.forward = model["used"].forward  # type: ignore[method-assign]
    compressed, report = mlc.compress(model["used"], calibration=[torch.randn(600, 512)], target=TARGET)
    assert isinstance(compressed, LowRankLinear) and report.layers[0].path == ""

    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = linear(low_rank_weight(8, 512, 512))

        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    assert "fewer than two rows" in mlc.compress(Idle(), calibration=[torch.randn(4, 512)], target=TARGET).report.layers[0].reason


def test_the_copy_trains_and_loads_like_any_module() -> None:
    model = nn.Sequential(linear(low_rank_weight(8, 512, 512)), nn.ReLU(), linear(monarch_weight(16, 512))).eval()
    compressed, _ = mlc.compress(model, target=TARGET)
    assert not compressed[0].training and all(parameter.requires_grad for parameter in compressed.parameters())
    compressed(torch.randn(3, 512)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in compressed.parameters())
    again, _ = mlc.compress(model, target=TARGET)
    again.load_state_dict(compressed.state_dict())


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_factors_compile_to_few_kernels(rows: int) -> None:
    """Two for a low-rank layer, one for a Monarch layer; what is around them is absorbed."""
    model = nn.Sequential(linear(low_rank_weight(8, 512, 512)), nn.GELU(), linear(monarch_weight(16, 512))).eval()
    compressed, report = mlc.compress(model, target=TARGET)
    assert [layer.form.split()[0] for layer in report.layers] == ["low-rank", "monarch"]
    x = torch.randn(rows, 512)
    fast = mlc.compile(compressed, example_inputs=(x,), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(fast.report().programs[0].kernels) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "svd"}, "low-rank, monarch, auto"),
        ({"error": 0.0}, "between 0 and 1"),
        ({"error": 1.5}, "between 0 and 1"),
        ({"calibration": torch.randn(3, 4)}, "list of batches"),
        ({"calibration": []}, "no batches"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        mlc.compress(nn.Linear(4, 4), **options)  # type: ignore[arg-type]


def test_only_modules_are_compressed() -> None:
    with pytest.raises(OptionError, match=r"nn\.Module"):
        mlc.compress(torch.relu)  # type: ignore[arg-type]
