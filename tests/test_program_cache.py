"""Whole programs come from the cache when nothing they are made from differs, whatever became of the files meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import mlc
from mlc.codegen import assembly

SCRIPT = """
import sys, torch, mlc
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 5)).eval()
x = torch.randn(2, 3, 8, 8)
compiled = mlc.compile(model, example_inputs=(x,))
with torch.inference_mode():
    torch.testing.assert_close(compiled(x), model(x))
print("tvm" in sys.modules)
"""


def perceptron(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    return tmp_path / "programs"


def compiles(model: nn.Module, monkeypatch: pytest.MonkeyPatch, rows: int = 3, **options: object) -> bool:
    """Whether compiling (and running) ``model`` assembled a program; checks the result either way."""
    assembled = []
    assemble = assembly.assemble
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "assemble", lambda *args, **kwargs: assembled.append(1) or assemble(*args, **kwargs))
        x = torch.randn(rows, 8)
        compiled = mlc.compile(model, example_inputs=(x,), **options)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), model(x))
    return bool(assembled)


def test_a_program_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int]] = []
    assert compiles(perceptron(), monkeypatch)
    assert not compiles(perceptron(), monkeypatch, progress=lambda done, total, label: heard.append((done, total)))
    assert heard and heard[-1][0] == heard[-1][1] > 0


@pytest.mark.parametrize("options", [{"threads": 1}, {"nonfinite": "strict"}, {"target": "cpu -mcpu=x86-64-v3"}, {"rows": 4}])
def test_other_options_make_another_program(cache: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]) -> None:
    compiles(perceptron(), monkeypatch)
    assert compiles(perceptron(), monkeypatch, **options)


def test_another_precision_makes_another_program(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 8)
    with torch.inference_mode():
        results = [mlc.compile(perceptron(), example_inputs=(x,), precision=mode)(x) for mode in ("fp32", "w8", {"0": "w8"}, "w8")]
    assert len(list(cache.glob("*.program"))) == 3
    torch.testing.assert_close(results[3], results[1], rtol=0, atol=0)
    assert len({tuple(result.flatten().tolist()) for result in results}) == 3


def test_other_weights_make_another_program(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiles(perceptron(), monkeypatch)
    assert compiles(perceptron(seed=1), monkeypatch)


@pytest.mark.parametrize("pattern", ["*.program", "*.so", "*.weights"])
@pytest.mark.parametrize("damage", ["truncated", "removed", "overwritten"])
def test_damaged_files_are_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, damage: str) -> None:
    compiles(perceptron(), monkeypatch)
    (path,) = cache.glob(pattern)
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "overwritten" and pattern != "*.weights":  # whose content is trusted, like that of an artifact's weights
        path.write_bytes(bytes(len(content)))
    assert compiles(perceptron(), monkeypatch)


def test_weights_that_do_not_fit_are_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_BYTES", "16")
    compiles(perceptron(), monkeypatch)
    assert not list(cache.glob("*.weights"))
    assert compiles(perceptron(), monkeypatch)


def test_the_weights_used_last_stay(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiles(perceptron(seed=1), monkeypatch)
    (first,) = cache.glob("*.weights")
    monkeypatch.setenv("MLC_CACHE_BYTES", str(5 * first.stat().st_size))
    for seed in range(2, 6):
        compiles(perceptron(seed), monkeypatch)
    os.utime(first, (0, 0))
    compiles(perceptron(seed=6), monkeypatch)
    assert not first.exists()
    assert len(list(cache.glob("*.weights"))) == 5


def test_processes_compile_into_one_empty_cache_at_the_same_time(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in together:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, output + errors
    assert not list(tmp_path.rglob(".new-*"))
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert again.stdout.split() == ["False"]  # found without TVM


def test_a_killed_process_leaves_nothing_that_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves what it had not renamed yet."""
    cache.mkdir(parents=True)
    (cache / ".new-killed.so").write_bytes(b"\x7fELF")
    (cache / ".new-killed").write_bytes(b"{")
    os.utime(cache / ".new-killed", (0, 0))
    assert compiles(perceptron(), monkeypatch)
    assert not compiles(perceptron(), monkeypatch)
    assert [path.name for path in cache.glob(".new-*")] == [".new-killed.so"]  # the other has been there for days
