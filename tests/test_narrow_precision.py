"""Models compiled to compute with narrow numbers, against PyTorch in fp32: how far off each mode is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.calibration import flat_samples
from mlc.driver import lower_imported
from mlc.errors import OptionError
from mlc.frontend import export_model, import_exported
from mlc.ir import DType, interpret
from mlc.options import check_options


class Residual(nn.Module):
    """Convolutions with a batch norm, one around which the operand is added again, and a layer on the means."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.down = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.inner = nn.Sequential(nn.Conv2d(64, 48, 1), nn.ReLU(), nn.Conv2d(48, 64, 1))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(self.first(x)))
        return self.head(torch.relu(self.inner(x) + x).mean((2, 3)))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS = {"mlp": (perceptron, (4, 48)), "residual": (Residual, (2, 3, 16, 16)), "transformer": (transformer, (2, 12, 64))}
ERRORS = {"bf16": 4e-3, "fp16": 1e-3, "int8": 0.03, "int8 calibrated": 0.03}
"""Of all outputs, by norm."""


def built(name: str) -> tuple[nn.Module, Tensor, list[tuple[Tensor, ...]]]:
    """A model with random parameters, an input, and samples."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                fresh = torch.randn_like(value) / max(value[0].numel(), 4) ** 0.5 if value.dim() > 1 else 0.3 * torch.randn_like(value)
                value.copy_(fresh.abs() + 0.5 if "running_var" in key else fresh + 1 if "norm" in key and "weight" in key else fresh)
    return model, torch.randn(shape), [(torch.randn(shape),) for _ in range(4)]


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("mode", ERRORS)
@pytest.mark.parametrize("name", MODELS)
def test_errors_of_models(name: str, mode: str) -> None:
    model, x, samples = built(name)
    word, _, calibrated = mode.partition(" ")
    fast = mlc.compile(model, example_inputs=(x,), precision=word, calibration=samples if calibrated else None, strict=True)
    with torch.inference_mode():
        assert error(fast(x), model(x)) < ERRORS[mode]
    words = {kernel.precision for kernel in fast.report().programs[0].kernels} - {""}
    assert words <= {word} and (words or word in ("bf16", "fp16"))


@pytest.mark.parametrize("static", [True, False])
def test_programs_in_integers_equal_the_interpreter_exactly(static: bool) -> None:
    model, x, _ = built("mlp")
    model = nn.Sequential(model[0], nn.ReLU(), *model[2:])  # gelu is rounded otherwise by the interpreter
    samples = [(x,)] if static else None
    options = check_options(precision="int8", calibration=samples)
    fast = mlc.compile(model, example_inputs=(x,), precision="int8", calibration=samples, strict=True)
    exported = export_model(model, (x,), {})
    imported = import_exported(exported)
    graph = lower_imported(imported, options, flat_samples(options.calibration, exported, imported)).graph
    assert any(node.op == "reduce" for node in graph.walk()) is not static
    assert any(value.tensor.dtype is DType.INT32 for node in graph.walk() for value in node.outputs)
    (wanted,) = interpret(graph, [x.numpy()])
    with torch.inference_mode():
        got = fast(x)
    # Scales found at run time are multiplied and added to, for which kernels round once and the interpreter twice.
    assert torch.equal(got, torch.from_numpy(wanted)) if static else error(got, torch.from_numpy(wanted)) < 1e-6


def test_calibration_decides_what_is_cut_off() -> None:
    model, x, _ = built("mlp")
    narrow = [(0.1 * torch.randn(4, 48),)]
    with torch.inference_mode():
        wanted = model(x)
        small = mlc.compile(model, example_inputs=(x,), precision="int8", calibration=narrow)
        fitting = mlc.compile(model, example_inputs=(x,), precision="int8", calibration=[(x,)])
        assert error(small(x), wanted) > 10 * error(fitting(x), wanted)
        assert torch.equal(mlc.compile(model, example_inputs=(x,), precision="int8", calibration=[(x,)])(x), fitting(x))


def test_modes_of_modules() -> None:
    model, x, samples = built("residual")
    fast = mlc.compile(model, example_inputs=(x,), precision={"inner": "int8", "head": "bf16"}, calibration=samples, strict=True)
    kernels = fast.report().programs[0].kernels
    modes = {kernel.location.split("'")[1]: kernel.precision for kernel in kernels if "conv" in kernel.label or "linear" in kernel.label}
    assert modes == {"first.0": "", "down": "", "inner.0": "int8", "inner.2": "int8", "head": "bf16"}


def test_sizes_that_are_known_when_called() -> None:
    model, x, samples = built("mlp")
    shapes = ({0: torch.export.Dim("rows", min=2, max=64)},)
    for calibration in (None, samples):
        fast = mlc.compile(model, example_inputs=(x,), dynamic_shapes=shapes, precision="int8", calibration=calibration, strict=True)
        for rows in (2, 17, 64):
            more = torch.randn(rows, 48)
            with torch.inference_mode():
                assert error(fast(more), model(more)) < 0.05


def test_programs_in_integers_are_saved(tmp_path: Path) -> None:
    model, x, samples = built("residual")
    fast = mlc.compile(model, example_inputs=(x,), precision="int8", calibration=samples, strict=True)
    fast.save(tmp_path / "model.mlc")
    with torch.inference_mode():
        assert torch.equal(mlc.load(tmp_path / "model.mlc")(x), fast(x))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.zeros(4, 48), "calibration is a Tensor; give a list of batches"),
        ([], "calibration holds no batches"),
        ([(torch.zeros(4, 48), torch.zeros(1))], r"calibration\[0\] has another structure than the example inputs, which are input"),
        (
            [torch.zeros(4, 48), torch.zeros(3, 48)],
            r"calibration\[1\]: input 'input' is float32\[3, 48\], and float32\[4, 48\] in the example",
        ),
        ([(torch.zeros(4, 48, dtype=torch.int32),)], r"calibration\[0\]: input 'input' is int32\[4, 48\]"),
        ([{"x": torch.zeros(4, 48)}], "calibration names the input 'x', and the model has 'input'"),
    ],
)
def test_samples_that_do_not_fit_are_refused(calibration: object, message: str) -> None:
    model, x, _ = built("mlp")
    with pytest.raises(OptionError, match=message):
        mlc.compile(model, example_inputs=(x,), precision="int8", calibration=calibration)
