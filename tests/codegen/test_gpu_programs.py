"""Whole models compiled for a GPU: their host code runs with a stand-in for the CUDA driver, their kernels through OpenCL."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_stand_in import StandIn, cuda_stand_in
from torch import nn
from typer.testing import CliRunner

import mlc
from mlc import cli
from mlc.benchmarks.models.randomise import randomise
from mlc.errors import BuildError, DeviceUnavailableError, OptionError, SignatureError

TARGET = "cuda -arch=sm_80"


class Residual(nn.Module):
    """An inverted residual block and a pooled head: dense, depthwise, strided and pointwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = x + self.pointwise(nn.functional.silu(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


class Decoder(nn.Module):
    """One layer of a transformer with grouped queries, causal attention, and the three most likely next tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.norm = nn.LayerNorm(32)
        self.q, self.k, self.v, self.out = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(32, 32)
        self.wide, self.narrow = nn.Linear(32, 48), nn.Linear(48, 32)
        self.head = nn.Linear(32, 50)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        batch, length, _ = x.shape
        normal = self.norm(x)
        q, k, v = (layer(normal).view(batch, length, -1, 8).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, 32))
        x = x + self.narrow(nn.functional.gelu(self.wide(x)))
        return self.head(x).log_softmax(-1).topk(3).values


class Remembering(nn.Module):
    """A branch on data, and a buffer that the calls change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x.sum(0))
        return torch.cond(x.sum() > 0, lambda a: a.relu(), lambda a: a * 2, (x,)) + self.seen


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 24), nn.Tanh(), nn.Linear(24, 10), nn.Softmax(-1))


MODELS = {
    "perceptron": (perceptron, lambda: torch.randn(5, 40)),
    "convolutional": (Residual, lambda: torch.randn(2, 3, 24, 24)),
    "transformer": (Decoder, lambda: torch.randint(0, 50, (2, 11))),
}


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[StandIn]:
    with cuda_stand_in(tmp_path) as found:
        yield found


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    x = inputs()
    return randomise(make(), (x,)), x


@pytest.mark.parametrize("name", MODELS)
def test_models_match_pytorch(name: str, gpu: StandIn, tmp_path: Path) -> None:
    model, x = built(name)
    compiled = mlc.compile(model, example_inputs=(x,), target=TARGET)
    program = compiled.executables[0].program
    gpu.know(program, model, (x,), TARGET)
    with torch.no_grad():
        result = compiled(x)
        eager = model(x).double()
        exact = copy.deepcopy(model).double()(x.double() if x.is_floating_point() else x)
    assert not gpu.problems
    # Every kernel ran, in the order of the program.
    assert gpu.launched == [call.symbol for call in program.calls]
    norm = exact.norm()
    assert ((result - exact).norm() / norm).item() <= max(10 * ((eager - exact).norm() / norm).item(), 1e-5)

    if name == "perceptron":
        compiled.save(tmp_path / "model.mlc")
        loaded = mlc.load(tmp_path / "model.mlc")
        again = loaded(x.numpy())
        assert isinstance(again, np.ndarray)
        np.testing.assert_array_equal(again, result.numpy())
        times = [kernel.seconds for kernel in loaded.profile(x, calls=1).kernels]
        assert all(seconds is not None and 0 < seconds < math.inf for seconds in times)
        with pytest.raises(SignatureError, match="shape"):
            loaded(x[:2])
        before = gpu.allocated
        del loaded
        gc.collect()
        assert gpu.allocated == before - 1, "the weights are freed with the program"


def test_branches_and_states(gpu: StandIn) -> None:
    model, x = Remembering().eval(), torch.ones(3, 4)
    twin = copy.deepcopy(model)
    compiled = mlc.compile(model, example_inputs=(x,), target=TARGET)
    gpu.know(compiled.executables[0].program, copy.deepcopy(twin), (x,), TARGET)
    with torch.no_grad():
        for sign in (1, -1, -1):
            torch.testing.assert_close(compiled(sign * x), twin(sign * x))
    assert torch.equal(model.seen, twin.seen) and not gpu.problems


def test_without_a_gpu_everything_works_but_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlc.runtime import cuda_driver

    monkeypatch.setenv("MLC_CUDA_DRIVER", str(tmp_path / "there-is-none.so"))
    cuda_driver.driver.cache_clear()
    cuda_driver.device.cache_clear()
    model, x = built("perceptron")
    compiled = mlc.compile(model, example_inputs=(x,), target=TARGET)
    compiled.save(tmp_path / "model.mlc")
    assert "cuda -arch=sm_80" in str(mlc.load(tmp_path / "model.mlc").report())
    shown = CliRunner().invoke(cli.app, ["report", str(tmp_path / "model.mlc")])
    assert shown.exit_code == 0 and "softmax" in shown.output
    with torch.no_grad():
        for callable_ in (compiled, mlc.load(tmp_path / "model.mlc")):
            with pytest.raises(DeviceUnavailableError, match=r"NVIDIA GPU.*target='cpu'"):
                callable_(x)


def test_what_is_not_there_yet_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, x = built("perceptron")
    with pytest.raises(OptionError, match="cuda"):
        mlc.tune(model, example_inputs=(x,), target=TARGET, database=tmp_path / "tuning.db")


def test_estimates_need_no_gpu() -> None:
    model, x = built("convolutional")
    a100 = mlc.estimate(model, example_inputs=(x,), target="cuda -arch=sm_80")
    assert 0 < a100.seconds < 1e-3
    assert a100.target == "cuda -arch=sm_80 -board=a100"


def test_a_missing_nvcc_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlc.codegen.gpu import compile

    monkeypatch.setattr(compile.os, "access", lambda path, mode: False)
    compile.nvcc.cache_clear()
    try:
        with pytest.raises(BuildError, match="nvidia-cuda-nvcc"):
            compile.nvcc()
    finally:
        compile.nvcc.cache_clear()
