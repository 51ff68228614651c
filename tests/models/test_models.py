"""Whole models through the public face, against PyTorch in float64.

The quick tests keep every model's full width and cut its depth (of some the size of the input, too); ``make test-full`` runs the models as
they are.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.benchmarks import accuracy
from mlc.benchmarks.models import ZOO


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    yield
    gc.collect()


def other_inputs(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs of the same shapes with other values, so that nothing of the example can be baked into the program."""
    generator = torch.Generator().manual_seed(99)
    return tuple(
        torch.randn(x.shape, generator=generator)
        if x.is_floating_point()
        else torch.randint(int(x.max()) + 1, x.shape, generator=generator)
        for x in inputs
    )


def check(model: nn.Module, inputs: tuple[Tensor, ...], target: str = "cpu") -> None:
    fast = mlc.compile(model, example_inputs=inputs, target=target, strict=True)
    wide = copy.deepcopy(model).double()
    for x in (inputs, other_inputs(inputs)):
        truth = accuracy.reference(wide.forward, x)
        with torch.inference_mode():  # with gradients enabled the original model would run
            eager = model(*x)
            result = fast(*x)
        assert type(result) is type(eager)
        found = accuracy.error(accuracy.tensors(result), truth)
        allowed = accuracy.allowed(accuracy.error(accuracy.tensors(eager), truth))
        assert found <= allowed, f"error {found:.2e} against float64, allowed {allowed:.2e}"


@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("_batch8")])
def test_shallow_model_matches_float64(name: str) -> None:
    check(*ZOO[name].small())


@pytest.mark.parametrize(("processor", "name"), [("x86-64", "unet"), ("x86-64", "mlp"), ("haswell", "llama_token"), ("haswell", "unet")])
def test_code_for_older_processors_matches_float64(processor: str, name: str) -> None:
    check(*ZOO[name].small(), target=f"cpu -mcpu={processor} -threads=2")


@pytest.mark.full
@pytest.mark.parametrize("name", ZOO)
def test_full_model_matches_float64(name: str) -> None:
    check(*ZOO[name].full())
