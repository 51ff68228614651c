"""Microcontrollers: models as C99, built here and run on an emulated Cortex-M."""

from __future__ import annotations

import copy
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import mlc
from mlc.benchmarks.models.randomise import randomise
from mlc.codegen.c import footprint as footprint_module

from .c_programs import compiled_for, run_emulated, run_native


class KeywordSpotting(nn.Module):
    """A depthwise-separable net over 49 x 10 cepstral coefficients (Zhang et al., "Hello Edge", 2017), narrowed to 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, (10, 4), stride=2, padding=(5, 1))
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2))
        self.pointwise = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(2))
        self.head = nn.Linear(16, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.first(x)))
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = functional.relu(pointwise(functional.relu(depthwise(x))))
        return functional.softmax(self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1)), dim=1)


class PoolingNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, stride=2)
        self.up = nn.ConvTranspose2d(6, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = functional.max_pool2d(functional.hardswish(self.conv(x)), 2)
        return functional.avg_pool2d(self.up(x), 2, ceil_mode=True), x.amax(1)


class Block(nn.Module):
    """A transformer block over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.attention = nn.Linear(12, 36)
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        q, k, v = (part.unflatten(-1, (2, 6)).transpose(1, 2) for part in self.attention(x).chunk(3, dim=-1))
        x = x + functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return x + self.mlp(self.norm(x))


def arithmetic(x: torch.Tensor, n: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Elementwise operations over floats, integers that wrap, bytes and truth values."""
    return (
        torch.tanh(x) + torch.exp(x) * torch.sin(x) - torch.log1p(x.abs()),
        torch.cos(x * 1e7) + torch.log2(x.abs()) * torch.pow(x.abs(), x),
        n * 65537 * 65539 + (n >> 3),
        (n % 7) // torch.tensor(-3, dtype=torch.int32),
        torch.where(x > 0, x, x.sigmoid()),
        (b + 200) ^ 3,
        (x > 0.5) & (n < 4),
        x.cumsum(1),
        torch.sort(x, dim=1).indices,
    )


def _tensors(value: Any) -> list[np.ndarray[Any, Any]]:
    return [tensor.numpy() for tensor in (value if isinstance(value, tuple) else (value,))]


def _random(model: nn.Module, *inputs: torch.Tensor) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return randomise(model.eval(), inputs), inputs


def _mlp() -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    return _random(nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(1, 784))


def _arithmetic() -> tuple[Callable[..., Any], tuple[torch.Tensor, ...]]:
    numbers = torch.arange(-6, 9, dtype=torch.int32).reshape(3, 5) * 1001
    return arithmetic, (torch.randn(3, 5) * 2, numbers, torch.arange(100, 115, dtype=torch.uint8).reshape(3, 5))


MODELS: dict[str, Callable[[], tuple[Callable[..., Any], tuple[torch.Tensor, ...]]]] = {
    "mlp": _mlp,
    "keywords": lambda: _random(KeywordSpotting(), torch.randn(1, 1, 49, 10)),
    "pooling": lambda: _random(PoolingNet(), torch.randn(2, 2, 11, 13)),
    "block": lambda: _random(Block(), torch.randint(0, 20, (1, 7))),
    "arithmetic": _arithmetic,
}


def _check(found: list[np.ndarray[Any, Any]], model: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
    with torch.no_grad():
        eager = _tensors(model(*inputs))
        wide = copy.deepcopy(model).double() if isinstance(model, nn.Module) else model
        truth = _tensors(wide(*(x.double() if x.dtype == torch.float32 else x for x in inputs)))
    for ours, theirs, exact in zip(found, eager, truth, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        if not np.issubdtype(ours.dtype, np.floating):
            np.testing.assert_array_equal(ours, theirs)
            continue
        scale = np.linalg.norm(exact)
        error, allowed = np.linalg.norm(ours - exact) / scale, np.linalg.norm(theirs - exact) / scale
        assert error <= max(10 * allowed, 1e-5)


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest) -> tuple[mlc.CompiledModel, Callable[..., Any], tuple[torch.Tensor, ...]]:
    torch.manual_seed(5)
    model, inputs = MODELS[request.param]()
    return compiled_for(model, inputs), model, inputs


def test_c99_gives_what_pytorch_gives(case: Any, tmp_path: pathlib.Path) -> None:
    compiled, model, inputs = case
    _check(run_native(compiled, [x.numpy() for x in inputs], tmp_path), model, inputs)


def test_emulated_processor_gives_what_pytorch_gives(case: Any, tmp_path: pathlib.Path) -> None:
    compiled, model, inputs = case
    emulated = run_emulated(compiled, [x.numpy() for x in inputs], tmp_path)
    _check(emulated.outputs, model, inputs)
    (program,) = compiled.report().programs
    work = sum(kernel.flops for kernel in program.kernels)
    # Powers and angles of many turns, of 15 elements each, take fp64, which this processor has in software only.
    besides = 2 * 15 * 2_000 if model is arithmetic else 0
    assert work / 2 < emulated.instructions < 3 * work + 30_000 + besides


@pytest.mark.parametrize("target", ["cortex-m3", "cortex-m7"])
def test_other_processors_run_it_too(target: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(6)
    model, inputs = _random(nn.Sequential(nn.Linear(12, 9), nn.Sigmoid(), nn.Softmax(1)), torch.randn(2, 12))
    _check(run_emulated(compiled_for(model, inputs, target), [x.numpy() for x in inputs], tmp_path).outputs, model, inputs)


def test_sources_need_neither_heap_nor_tvm(case: Any, tmp_path: pathlib.Path) -> None:
    compiled, _, _ = case
    files = compiled.export_c(tmp_path, "Wake Word")
    assert {path.name for path in files} == {"wake_word.c", "wake_word.h", "mlc_abi.h"}
    source = (tmp_path / "wake_word.c").read_text()
    assert set(re.findall(r"#include ([<\"].*[>\"])", source)) <= {'"wake_word.h"', "<math.h>", "<stddef.h>", "<string.h>"}
    assert not re.search(r"malloc|printf|TVM|MLC_MODEL", source)
    assert "int32_t wake_word_run(" in (tmp_path / "wake_word.h").read_text()


def test_calling_says_that_the_device_is_absent(case: Any) -> None:
    compiled, _, inputs = case
    with torch.no_grad(), pytest.raises(mlc.DeviceUnavailableError, match="export_c"):
        compiled(*inputs)


def test_artifact_holds_the_sources(tmp_path: pathlib.Path) -> None:
    model, inputs = MODELS["mlp"]()
    compiled = compiled_for(model, inputs)
    compiled.save(tmp_path / "m.mlc")
    loaded = mlc.load(tmp_path / "m.mlc")
    assert str(loaded.report()) == str(compiled.report())
    loaded.export_c(tmp_path / "loaded")
    compiled.export_c(tmp_path / "compiled")
    for path in (tmp_path / "compiled").iterdir():
        assert path.read_bytes() == (tmp_path / "loaded" / path.name).read_bytes()
    with pytest.raises(mlc.DeviceUnavailableError, match="cortex-m4"):
        loaded(*(x.numpy() for x in inputs))


def test_report_counts_flash_and_ram(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = MODELS["mlp"]()
    weights = 4 * (784 * 64 + 64 + 64 * 10 + 10)
    sizes = []
    for compiler in (footprint_module.cross_compiler(), None):
        monkeypatch.setattr(footprint_module, "cross_compiler", lambda compiler=compiler: compiler)
        (program,) = compiled_for(model, inputs).report().programs
        needed = program.footprint
        assert needed is not None and needed.measured == (compiler is not None)
        assert weights <= needed.weights_bytes < 1.1 * weights
        assert needed.io_bytes == 4 * (784 + 10)
        assert needed.flash_bytes > needed.weights_bytes and needed.ram_bytes >= needed.io_bytes + needed.arena_bytes
        assert "flash" in str(program) and program.to_dict()["footprint"]["ram_bytes"] == needed.ram_bytes
        sizes.append(needed)
    measured, estimated = sizes
    assert 1 / 4 < estimated.code_bytes / measured.code_bytes < 4


@pytest.mark.parametrize(("options", "memory"), [("-flash=128K", "bytes of flash"), ("-ram=2K", "bytes of RAM")])
def test_a_model_that_does_not_fit_is_told_by_how_much(options: str, memory: str) -> None:
    model, inputs = MODELS["mlp"]()
    with pytest.raises(mlc.CapacityError, match=rf"needs \d+ {memory} .* \d+ more than the \d+ there are"):
        compiled_for(model, inputs, f"cortex-m4 {options}")


def test_a_cpu_program_is_not_exported_as_c(tmp_path: pathlib.Path) -> None:
    compiled = mlc.compile(nn.ReLU(), example_inputs=(torch.randn(3),), target="cpu -threads=1")
    with pytest.raises(mlc.ArtifactError, match="cortex-m4"):
        compiled.export_c(tmp_path)
