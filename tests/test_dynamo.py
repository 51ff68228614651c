"""``torch.compile(model, backend="mlc")`` against eager PyTorch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import mlc.dynamo
from mlc.errors import FallbackWarning, OptionError


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    yield
    torch._dynamo.reset()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modules that were compiled, one entry for each signature."""
    seen: list[Any] = []
    compile_program = mlc.dynamo.compile_program

    def recorded(module: Any, *args: Any, **kwargs: Any) -> Any:
        executable = compile_program(module, *args, **kwargs)
        seen.append(module)
        return executable

    monkeypatch.setattr(mlc.dynamo, "compile_program", recorded)
    return seen


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 5)).eval()


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 4)
    ).eval()


def assert_same(compiled: Callable[..., Any], model: Callable[..., Any], *args: Any) -> None:
    """No warning, and the results of eager PyTorch."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(compiled(*args), model(*args), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "shape"), [(mlp, (3, 12)), (convolutions, (2, 3, 8, 8))], ids=["mlp", "convolutions"])
def test_models(make: Callable[[], nn.Module], shape: tuple[int, ...], compilations: list[Any]) -> None:
    model = make()
    compiled = torch.compile(model, backend="mlc")
    for _ in range(2):
        assert_same(compiled, model, torch.randn(shape))
    assert len(compilations) == 1
    assert sum(parameter.numel() for parameter in compilations[0].parameters()) == sum(each.numel() for each in model.parameters())


def test_transformer(compilations: list[Any]) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=32
    )
    model = BertModel(config).eval()
    compiled = torch.compile(model, backend="mlc")
    ids = torch.randint(0, 50, (1, 10))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        got, expected = compiled(ids), model(ids)
    torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.pooler_output, expected.pooler_output, rtol=1e-4, atol=1e-5)
    assert len(compilations) == 1


def test_parameters_that_are_attributes(compilations: list[Any]) -> None:
    """Other tracers leave them in the graph module."""
    model = mlp()
    x = torch.randn(3, 12)
    traced = mlc.dynamo.mlc_backend(_with_tuple(torch.fx.symbolic_trace(model)), [x])
    with torch.no_grad():
        torch.testing.assert_close(traced(x)[0], model(x), rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="gradients are enabled"):
        assert traced(x)[0].requires_grad
    assert len(compilations) == 1


def _with_tuple(graph_module: torch.fx.GraphModule) -> torch.fx.GraphModule:
    (output,) = graph_module.graph.find_nodes(op="output")
    output.args = ((output.args[0],),)
    graph_module.recompile()
    return graph_module


def test_graph_break(compilations: list[Any]) -> None:
    first, second = mlp(), nn.Linear(5, 7)

    def model(x: torch.Tensor) -> torch.Tensor:
        y = first(x)
        torch._dynamo.graph_break()
        return second(y) if y.sum().item() > -1e9 else y

    assert_same(torch.compile(model, backend="mlc"), model, torch.randn(2, 12))
    assert len(compilations) >= 2


@pytest.mark.parametrize("dynamic", [None, False, True])
def test_each_shape_is_compiled(dynamic: bool | None, compilations: list[Any]) -> None:
    model = mlp()
    compiled = torch.compile(model, backend="mlc", dynamic=dynamic)
    for batch in (2, 3, 4, 2, 3, 4):
        assert_same(compiled, model, torch.randn(batch, 12))
    assert len(compilations) <= 4  # Dynamo may trace the first shape twice


@torch._dynamo.config.patch(recompile_limit=2)
def test_too_many_shapes_run_in_pytorch(compilations: list[Any]) -> None:
    model = nn.Linear(4, 4)
    compiled = torch.compile(model, backend="mlc", dynamic=True)
    with torch.no_grad(), pytest.warns(UserWarning, match="compiled 2 times already") as caught:
        for batch in (2, 3, 4, 5, 4):
            x = torch.randn(batch, 4)
            torch.testing.assert_close(compiled(x), model(x))
    assert len(caught) == 1
    assert len(compilations) == 2


def test_changed_weights() -> None:
    model = mlp()
    compiled = torch.compile(model, backend="mlc")
    x = torch.randn(3, 12)
    assert_same(compiled, model, x)
    with torch.no_grad():
        model[0].weight.mul_(2)
        with pytest.warns(UserWarning, match="changed since it was compiled"):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    model[2] = nn.Linear(24, 5)
    assert_same(compiled, model, x)


def test_modules_that_share_a_graph_keep_their_weights(compilations: list[Any]) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x))

    layers = [Layer(), Layer(), Layer()]
    x = torch.randn(2, 6)
    for layer in [*layers, *layers]:
        assert_same(torch.compile(layer, backend="mlc"), layer, x)
    assert len(compilations) == 3


def test_gradients(compilations: list[Any]) -> None:
    model = mlp()
    reference = copy.deepcopy(model)
    compiled = torch.compile(model, backend="mlc")
    x = torch.randn(3, 12)
    assert_same(compiled, model, x)
    with pytest.warns(UserWarning, match="gradients are enabled") as caught:
        for _ in range(2):
            compiled(x).square().sum().backward()
    assert len(caught) == 1
    for _ in range(2):
        reference(x).square().sum().backward()
    for got, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad)
    assert len(compilations) == 1


def test_gradients_inside_no_grad(compilations: list[Any]) -> None:
    model = mlp()

    def partly(x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return model(x)

    with torch.no_grad(), pytest.warns(UserWarning, match="gradients are enabled"):
        result = torch.compile(partly, backend="mlc")(torch.randn(3, 12))
    assert result.requires_grad
    assert not compilations


def test_frozen_parameters_are_compiled_in_grad_mode(compilations: list[Any]) -> None:
    model = mlp().requires_grad_(False)
    x = torch.randn(3, 12)
    torch.testing.assert_close(torch.compile(model, backend="mlc")(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(compilations) == 1


def test_unsupported_operations_run_in_pytorch(compilations: list[Any]) -> None:
    linear = nn.Linear(4, 4)

    def model(x: torch.Tensor) -> torch.Tensor:
        y = torch.linalg.inv(linear(x))
        torch._dynamo.graph_break()
        return torch.relu(y) + 1

    compiled = torch.compile(model, backend="mlc")
    with torch.no_grad(), pytest.warns(FallbackWarning, match=r"linalg_inv") as caught:
        for _ in range(2):
            x = torch.randn(4, 4)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    assert len(caught) == 1
    assert len(compilations) == 2


def test_dropout_in_training_is_random(compilations: list[Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5)).train()
    compiled = torch.compile(model, backend="mlc")
    x = torch.randn(2, 4)
    with torch.no_grad(), pytest.warns(FallbackWarning, match="native_dropout"):
        assert not torch.equal(compiled(x), compiled(x))
    assert len(compilations) == 1


def test_changed_arguments_and_buffers(compilations: list[Any]) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4, 3))
            self.weight = nn.Parameter(torch.full((3,), 2.0))

        def forward(self, x: torch.Tensor, cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            self.count[0].add_(x[0] * self.weight)
            cache[1:2] = x[:1]
            cache += 1
            torch.mul(x, 2, out=x)
            return x + self.count, cache, cache[0]

    model, reference = Changing(), Changing()
    compiled = torch.compile(model, backend="mlc", mode="reduce-overhead")
    with torch.no_grad():
        for step in range(3):
            x, cache = torch.full((4, 3), step + 1.0), torch.zeros(4, 3)
            y, expected_cache = x.clone(), cache.clone()
            total, same, row = compiled(x, cache)
            expected = reference(y, expected_cache)
            for found, wanted in zip(
                (total, same, row, x, cache, model.count), (*expected, y, expected_cache, reference.count), strict=True
            ):
                torch.testing.assert_close(found, wanted)
            assert same is cache and row.data_ptr() == cache.data_ptr()
        # Another buffer of that shape needs no other program.
        model.count = torch.ones(4, 3)
        compiled(x, cache)
        assert model.count[0].ne(1).all()
    assert len(compilations) == 1


def test_views_of_inputs_share_their_memory(compilations: list[Any]) -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[1:].transpose(0, 1), torch.relu(x) + 1

    x = torch.randn(3, 4)
    with torch.no_grad():
        view, result = torch.compile(model, backend="mlc")(x)
    torch.testing.assert_close(result, torch.relu(x) + 1)
    view.zero_()
    assert not x[1:].any() and x[0].all()
    assert len(compilations) == 1


@pytest.mark.parametrize("overlap", [True, False])
def test_outputs_that_share_memory(overlap: bool, compilations: list[Any]) -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(x) + 1
        return y[:, :2], y[:, 1 if overlap else 2 :]

    x = torch.randn(3, 4)
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        left, right = torch.compile(model, backend="mlc")(x)
    left.zero_()
    expected = model(x)
    expected[0].zero_()
    torch.testing.assert_close((left, right), expected)
    assert len(compilations) == (not overlap)
    assert [str(warning.message) for warning in caught if "share memory" in str(warning.message)] == [
        str(warning.message) for warning in caught
    ]
    assert len(caught) == overlap


def test_options() -> None:
    model = mlp()
    x = torch.randn(3, 12)
    assert_same(torch.compile(model, backend="mlc", options={"threads": 1, "nonfinite": "strict"}), model, x)
    graph = torch.fx.symbolic_trace(model)
    with pytest.raises(OptionError, match="'speed'"):
        mlc.dynamo.mlc_backend(graph, [x], options={"speed": 1})
    with pytest.raises(OptionError, match="max-autotune"):
        mlc.dynamo.mlc_backend(graph, [x], mode="max-autotune")
