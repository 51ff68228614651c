"""The short way to a functional program gives the graphs that PyTorch's decomposition gives, and leaves alone what it does not know."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from eager import rand
from torch import Tensor, nn
from torch.nn import functional as F

from mlc.frontend import Exported, import_exported
from mlc.frontend.decompositions import our_decompositions
from mlc.frontend.export import as_module
from mlc.frontend.functional import decomposes, functional_directly
from mlc.frontend.registry import supported
from mlc.ir import canonicalise, print_graph


def ways(model: nn.Module | Callable[..., Tensor], *args: Tensor) -> tuple[str, str] | None:
    """The graphs of both ways; None when the short one does not know the model."""
    with torch.no_grad():
        short, long = (torch.export.export(as_module(model), args) for _ in range(2))
        if not functional_directly(short):
            return None
        long = long.run_decompositions(our_decompositions())
    first, second = (import_exported(Exported(program, {})).graph for program in (short, long))
    return print_graph(canonicalise(first), locations=False), print_graph(canonicalise(second), locations=False)


def block() -> nn.Module:
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(4, 2, 2), nn.Hardtanh(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def residual(x: Tensor, w: Tensor) -> Tensor:
    y = F.conv2d(x, w)
    z = F.conv2d(y, w.transpose(2, 3))
    z += x
    return F.relu_(z).mul_(2).to(torch.float64) + y


KNOWN = {
    "convolutional": (block(), (rand(2, 3, 8, 8),)),
    "written more than once": (residual, (rand(1, 3, 8, 8), rand(3, 3, 1, 1))),
    "kept composites": (lambda x: F.layer_norm(x @ x.transpose(0, 1), (4,)).reshape(2, 8), (rand(4, 4),)),
    "named before it is written": (lambda x: [y := x + 1, y.mul_(2), y - 3][2], (rand(4),)),
    "counting": (lambda x: x + torch.arange(4), (rand(4),)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_both_ways_give_one_graph(name: str) -> None:
    model, args = KNOWN[name]
    found = ways(model, *args)
    assert found is not None
    assert found[0] == found[1]


def written_through_a_view(x: Tensor) -> Tensor:
    y = x + 1
    y[0].mul_(2)
    return y


def viewed_before_it_is_written(x: Tensor) -> Tensor:
    y = x + 1
    view = y.reshape(-1)
    y.mul_(2)
    return view


def an_argument_is_written(x: Tensor) -> Tensor:
    return x.add_(1)


BEYOND = {
    "written through a view": (written_through_a_view, (rand(3, 4),)),
    "viewed before it is written": (viewed_before_it_is_written, (rand(3, 4),)),
    "an argument is written": (an_argument_is_written, (rand(3),)),
    "training": (nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)).eval(), (rand(2, 1, 4, 4),)),
    "narrower than what is added": (lambda x: (x.to(torch.bfloat16) + 1).add_(x), (rand(4),)),
    "one image": (nn.Conv2d(1, 1, 1), (rand(1, 4, 4),)),
    "padding by name": (nn.Conv2d(1, 1, 3, padding="same"), (rand(1, 1, 4, 4),)),
    "complex numbers": (lambda x: torch.view_as_complex(x), (rand(4, 2),)),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_it_stays_as_it_was(name: str) -> None:
    model, args = BEYOND[name]
    with torch.no_grad():
        exported = torch.export.export(as_module(model), args)
    before = str(exported.graph)
    assert not functional_directly(exported)
    assert str(exported.graph) == before


def test_it_agrees_with_the_table_on_what_is_decomposed() -> None:
    table = our_decompositions()
    assert {operation for operation in supported() if operation in table} <= {each for each in supported() if decomposes(each)}
