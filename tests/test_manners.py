"""How a compiled model behaves as the thing it was made from: attributes, weights in closures, kinds of arguments and results, threads."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.errors import ExportError, OptionError


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@dataclasses.dataclass
class Result:
    """Nobody told torch.export of it."""

    total: Tensor
    extra: Tensor | None = None


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Result:
        return Result(x * self.scale)

    def plain(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_dataclasses_come_back_as_themselves() -> None:
    model, x = Scaled(), torch.randn(3, 4)
    result = mlc.compile(model)(x)
    assert type(result) is Result and result.extra is None
    torch.testing.assert_close(result.total, model(x).total)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: lambda x: model.plain(x),
        lambda model: model.plain,
        lambda model: functools.partial(model.plain),
        lambda model: functools.partial(lambda layer, x: layer.plain(x), model),
    ],
    ids=["closure", "method", "partial of a method", "partial with a module"],
)
def test_weights_are_watched_however_the_model_is_reached(make: Callable[[Scaled], Callable[..., Tensor]]) -> None:
    model, x = Scaled(), torch.randn(3, 4)
    function = make(model)
    fast = mlc.compile(function)
    torch.testing.assert_close(fast(x), function(x))
    model.scale.mul_(2)
    with pytest.warns(UserWarning, match="compiled again"):
        torch.testing.assert_close(fast(x), function(x))


def test_arguments_of_all_kinds() -> None:
    def model(*xs: Tensor, factor: Any = 2.0, flag: bool = False, mask: Tensor | None = None, mode: str = "a") -> Any:
        y = sum(xs) * factor
        y = y if mask is None else torch.where(mask, y, 0)
        return {"y": -y if flag else y, "mode": mode, "rest": [None, (len(xs), True)]}

    x, fast = torch.randn(3, 4), mlc.compile(model)
    for args, kwargs in [
        ((x, x), {}),
        ((x,), {"factor": 3, "flag": True}),
        ((x,), {"mask": x > 0, "mode": "b"}),
        ((x,), {"factor": np.float32(1.5)}),
        ((x.int(),), {"factor": True}),
    ]:
        found, expected = fast(*args, **kwargs), model(*args, **kwargs)
        torch.testing.assert_close(found["y"], expected["y"], check_dtype=not isinstance(kwargs.get("factor"), np.generic))
        assert (found["mode"], found["rest"]) == (expected["mode"], expected["rest"])


def test_attributes_are_read_and_written_through() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 4)).eval()
    fast = mlc.compile(model)
    fast.note = "kept"
    assert model.note == "kept" and fast.note == "kept" and "note" in dir(fast)
    del fast.note
    assert not hasattr(model, "note")
    assert fast and len(fast) == 2 and fast[1] is model[1] and list(fast) == list(model)


def test_threads_can_be_set() -> None:
    x = torch.randn(3, 4)
    fast = mlc.compile(nn.Tanh())
    assert fast.threads is None
    expected = fast(x)
    fast.threads = 1
    assert fast.threads == 1 and fast.report().programs[0].threads == 1
    assert torch.equal(fast(x), expected)
    fast(torch.randn(2, 4))
    assert fast.threads == 1
    with pytest.raises(OptionError, match="at least 1"):
        fast.threads = 0


def test_a_forked_child_can_call() -> None:
    x = torch.randn(300, 300)
    fast = mlc.compile(lambda x: torch.relu(x @ x))
    expected = fast(x).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(fast(x.numpy()), expected) else 1)
    for _ in range(400):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
    assert status == 0
    assert np.array_equal(fast(x).numpy(), expected)


def test_branches_on_data_are_advised_to_torch_compile() -> None:
    def model(x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(ExportError, match=r"(?s)test_manners.py:\d+: if x.sum\(\) > 0:.*torch.compile\(model, backend='mlc'\)"):
        mlc.compile(model)(torch.ones(3))
