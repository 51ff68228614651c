"""The zoo's weights: nothing vanishes, nothing explodes, and no term is neutral."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mlc.benchmarks.accuracy import tensors
from mlc.benchmarks.models import BENCHMARK, ZOO


def spreads(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, float]:
    """Root mean square of what every module gives, by the module's path."""
    found: dict[str, float] = {}

    def record(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            squares = [tensor.square().mean() for tensor in tensors(output) if tensor.is_floating_point()]
            if squares:  # several outputs together: the sine of position 0 is rightly zero
                found[path] = torch.stack(squares).mean().sqrt().item()

        return hook

    for path, module in model.named_modules():
        module.register_forward_hook(record(path))
    with torch.no_grad():
        model(*inputs)
    return found


@pytest.mark.parametrize("name", ZOO)
def test_activations_stay_of_the_order_of_one(name: str) -> None:
    outside = {path: value for path, value in spreads(*ZOO[name].small()).items() if not 0.03 < value < 30}
    assert not outside


@pytest.mark.parametrize("name", ZOO)
def test_no_parameter_is_neutral(name: str) -> None:
    model, _ = ZOO[name].small()
    neutral = [
        path
        for path, parameter in model.named_parameters()
        if (parameter == 0).float().mean() > 0.01 or (parameter == 1).float().mean() > 0.01
    ]
    assert not neutral
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_mean.abs().min() > 0
            assert module.running_var is not None and (module.running_var != 1).all()


def test_the_seed_decides_the_weights() -> None:
    (first, _), (same, _), (other, _) = ZOO["mlp"].small(), ZOO["mlp"].small(), ZOO["mlp"].small(seed=1)
    weight = next(iter(first.parameters()))
    assert torch.equal(weight, next(iter(same.parameters())))
    assert not torch.equal(weight, next(iter(other.parameters())))


def test_the_benchmark_names_models_of_the_zoo() -> None:
    assert set(BENCHMARK) <= set(ZOO)
