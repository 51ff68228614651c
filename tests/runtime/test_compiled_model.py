"""CompiledModel: dispatch per signature, autograd, changes of weights, attributes. Programs are written in C."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_programs import adder, build, call_tree, leaf, program, spec
from torch import nn

import mlc
from mlc.errors import ArtifactError, DeviceUnavailableError, SignatureError
from mlc.ir.program import Signature
from mlc.module import CompiledModel
from mlc.runtime import Executable

LINEAR = """
/* y[rows][4] = x[rows][3] w[3][4]^T + b */
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  const float* w = c->constants;
  const float* x = io[0];
  float* y = io[1];
  for (int r = 0; r < ROWS; ++r)
    for (int o = 0; o < 4; ++o) {
      y[r * 4 + o] = w[12 + o];
      for (int i = 0; i < 3; ++i) y[r * 4 + o] += x[r * 3 + i] * w[o * 3 + i];
    }
  return 0;
}
"""


class Net(nn.Module):
    """A linear layer with something around it to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.register_buffer("scale", torch.ones(1))
        self.config = {"width": 4}

    def forward(self, x: torch.Tensor, flag: bool | None = None) -> torch.Tensor:
        return self.layer(x) * self.scale


class Compiler:
    """A compile_signature that knows linear layers, and counts."""

    def __init__(self, model: Net, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        entries = {key: leaf(0) if isinstance(value, torch.Tensor) else {"kind": "value", "value": value} for key, value in kwargs.items()}
        items = [leaf(0) if isinstance(value, torch.Tensor) else {"kind": "value", "value": value} for value in args]
        (x,) = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        self.calls.append(tuple(x.shape))
        scale = self.model.scale.numpy()
        layer = self.model.layer
        weights = np.concatenate([(layer.weight.detach().numpy() * scale).ravel(), layer.bias.detach().numpy() * scale])
        signature = Signature((spec("x", *x.shape),), (spec("y", x.shape[0], 4),), call_tree(items, entries))
        library = build(LINEAR, self.folder, ROWS=x.shape[0])
        return Executable(program(signature, weights=weights.tobytes()), library, weights)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Net, CompiledModel, Compiler]:
    torch.manual_seed(0)
    model = Net().eval()
    compiler = Compiler(model, tmp_path)
    return model, CompiledModel(model, compiler), compiler


def close(fast: Any, model: Net, x: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))


def test_it_compiles_once_per_signature(made: Any) -> None:
    model, fast, compiler = made
    for _ in range(3):
        for rows in (1, 2, 5):
            close(fast, model, torch.randn(rows, 3))
    assert compiler.calls == [(1, 3), (2, 3), (5, 3)]
    assert len(fast.signatures) == 3 and "x: f32[5,3]" in repr(fast)


def test_strides_and_kinds_are_no_new_signatures(made: Any) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = model(x)
        for given in (x, x.t().contiguous().t(), torch.cat([torch.zeros(1), x.flatten()])[1:].reshape(2, 3)):
            torch.testing.assert_close(fast(given), expected)
    out = fast(x.numpy())
    assert type(out) is np.ndarray
    np.testing.assert_allclose(out, expected.numpy(), rtol=1e-5)
    assert compiler.calls == [(2, 3)]


def test_numpy_arrays_may_come_first(made: Any) -> None:
    model, fast, _ = made
    out = fast(np.ones((2, 3), np.float32))
    assert type(out) is np.ndarray
    np.testing.assert_allclose(out, model(torch.ones(2, 3)).detach().numpy(), rtol=1e-5)


def test_every_spelling_of_the_arguments_reaches_one_program(made: Any) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(fast(x, None), expected)
        for _ in range(2):
            torch.testing.assert_close(fast(x=x, flag=None), expected)
            torch.testing.assert_close(fast(x, flag=None), expected)
        assert len(compiler.calls) == 1
        torch.testing.assert_close(fast(x, flag=True), expected)
        assert len(compiler.calls) == 2


def test_under_autograd_the_original_runs_with_one_warning(made: Any) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    with pytest.warns(UserWarning, match="gradients are enabled.*inference_mode") as caught:
        out = fast(x)
    assert caught[0].filename == __file__
    assert out.requires_grad and not compiler.calls
    out.sum().backward()
    assert model.layer.weight.grad is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fast(x).requires_grad
        with torch.no_grad():
            assert not fast(x).requires_grad
        assert fast(x).requires_grad
        with torch.inference_mode():
            assert not fast(x).requires_grad
    assert compiler.calls == [(2, 3)]


def test_frozen_models_run_compiled_with_gradients_enabled(made: Any) -> None:
    model, fast, compiler = made
    assert fast.requires_grad_(False) is fast
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = torch.randn(2, 3)
        for _ in range(2):
            torch.testing.assert_close(fast(x), model(x))
    assert compiler.calls == [(2, 3)]
    with pytest.warns(UserWarning, match="gradients are enabled"):
        y = torch.randn(2, 3, requires_grad=True)
        fast(y).sum().backward()
    assert y.grad is not None


def replace_parameter(model: Net) -> None:
    model.layer.weight = nn.Parameter(torch.randn(4, 3))


def step_optimizer(model: Net) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()


CHANGES = {
    "load_state_dict": lambda model: model.load_state_dict({**model.state_dict(), "layer.bias": torch.randn(4)}),
    "load_state_dict of a submodule": lambda model: model.layer.load_state_dict({"weight": torch.randn(4, 3), "bias": torch.randn(4)}),
    "load_state_dict by assignment": lambda model: model.load_state_dict(
        {key: torch.randn_like(value) for key, value in model.state_dict().items()}, assign=True
    ),
    "in place": lambda model: nn.init.normal_(model.layer.weight),
    "an assigned parameter": replace_parameter,
    "an optimizer step": step_optimizer,
    "a buffer": lambda model: model.scale.fill_(3.0),
    "new data": lambda model: setattr(model.layer.weight, "data", torch.randn(4, 3)),
    "a replaced submodule": lambda model: setattr(model, "layer", nn.Linear(3, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_weights_are_noticed(made: Any, change: str) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    close(fast, model, x)
    with torch.no_grad():
        before = model(x)
    CHANGES[change](model)
    with torch.no_grad():
        assert not torch.allclose(model(x), before)
    with pytest.warns(UserWarning, match="compiled again") as caught:
        close(fast, model, x)
    assert caught[0].filename == __file__
    close(fast, model, x)
    assert compiler.calls == [(2, 3), (2, 3)]


def test_writes_that_count_no_version_need_a_refresh(made: Any) -> None:
    model, fast, _ = made
    x = torch.randn(2, 3)
    close(fast, model, x)
    model.layer.weight.data.mul_(2)
    fast.refresh()
    close(fast, model, x)


def test_training_mode_is_part_of_what_was_compiled(made: Any) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    close(fast, model, x)
    model.layer.train()
    with pytest.warns(UserWarning, match="training mode"):
        close(fast, model, x)
    assert len(compiler.calls) == 2


def test_saving_after_a_change_saves_the_new_weights(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path / "cache"))
    model, fast, compiler = made
    with pytest.raises(ArtifactError, match="nothing is compiled yet"):
        fast.save(tmp_path / "m.mlc")
    for rows in (1, 2):
        close(fast, model, torch.randn(rows, 3))
    with torch.no_grad():
        model.layer.weight.add_(1)
    fast.save(tmp_path / "m.mlc")
    assert sorted(compiler.calls) == [(1, 3), (1, 3), (2, 3), (2, 3)]
    loaded = mlc.load(tmp_path / "m.mlc")
    for rows in (1, 2):
        close(loaded, model, torch.randn(rows, 3))


def test_report_and_profile(made: Any) -> None:
    _, fast, _ = made
    assert "nothing compiled yet" in str(fast.report())
    with pytest.raises(SignatureError, match="nothing to profile"):
        fast.profile()
    report = fast.profile(torch.randn(2, 3), calls=3)
    assert report.signature == "(x: f32[2,3]) -> f32[2,4]" and report.weights_bytes == 64
    assert fast.report().programs[0].name == "test"


def test_released_weights(made: Any) -> None:
    model, fast, _ = made
    with pytest.raises(SignatureError, match="nothing is compiled yet"):
        fast.release_weights()
    x = torch.randn(2, 3)
    with torch.no_grad():
        expected = model(x)
        fast(x)
    reference = weakref.ref(model.layer.weight.untyped_storage())
    fast.release_weights()
    gc.collect()
    assert reference() is None and model.layer.weight.is_meta
    torch.testing.assert_close(fast(x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), expected)
    with pytest.raises(SignatureError, match="weights were released, so no further signature"):
        fast(torch.randn(3, 3))
    with pytest.raises(SignatureError, match="requires a gradient, but the original model's weights were released"):
        fast(x.clone().requires_grad_())
    assert fast.config == {"width": 4}


def test_attributes_are_the_originals(made: Any) -> None:
    model, fast, _ = made
    assert fast.config is model.config and fast.layer is model.layer
    assert fast.eval() is fast and fast.float() is fast
    assert fast.state_dict().keys() == model.state_dict().keys()
    with pytest.raises(AttributeError, match="missing"):
        _ = fast.missing
    for spoil in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"use save\(\)"):
            spoil(fast)


def test_programs_for_absent_devices_compile_and_save_but_do_not_run(tmp_path: Path) -> None:
    absent = adder(tmp_path, features=("quantum9000",))
    fast = CompiledModel(lambda a, b: a + b, lambda args, kwargs: absent)
    a = torch.ones(4, 8)
    for _ in range(2):
        with pytest.raises(DeviceUnavailableError, match="quantum9000"):
            fast(a, a)
    fast.save(tmp_path / "absent.mlc")
    assert fast.report().programs[0].kernels
    with pytest.raises(DeviceUnavailableError, match="quantum9000"):
        mlc.load(tmp_path / "absent.mlc")


def test_functions_can_be_compiled(tmp_path: Path) -> None:
    source = Net().eval()
    fast = CompiledModel(lambda x: source(x), Compiler(source, tmp_path), name="function")
    x = torch.randn(2, 3)
    torch.testing.assert_close(fast(x), source(x).detach())


def test_concurrent_first_calls_compile_once(made: Any) -> None:
    model, fast, compiler = made
    x = torch.randn(2, 3)
    barrier = threading.Barrier(6)
    problems = []

    def call() -> None:
        barrier.wait()
        try:
            close(fast, model, x)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and compiler.calls == [(2, 3)]


def test_a_dropped_model_is_freed(tmp_path: Path) -> None:
    model = Net().eval()
    fast = CompiledModel(model, Compiler(model, tmp_path))
    close(fast, model, torch.randn(2, 3))
    references = weakref.ref(fast), weakref.ref(model.layer)
    del fast, model
    gc.collect()
    assert [reference() for reference in references] == [None, None]
