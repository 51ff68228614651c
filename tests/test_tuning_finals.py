"""The last round of a tuning job, in the network: which config is kept, and what a compilation gets of it."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import mlc
from mlc import tuning_finals
from mlc.autotune import Database, TaskResult, TuningResult
from mlc.autotune.choose import choice_for
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.costmodel import pretrained
from mlc.options import check_options
from mlc.tuning import model_tasks
from mlc.tuning_finals import ModelCall, hold_finals

ALONE = {"untuned": 1.05e-6, "first": 1.00e-6, "second": 1.02e-6, "outsider": 1.03e-6, "far": 2e-6}


class Setting:
    """A model of one kernel, whose configs were measured by themselves with the times of :data:`ALONE`."""

    def __init__(self, folder: pathlib.Path, order: Sequence[str] = tuple(ALONE)) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = nn.Linear(256, 192).eval(), (torch.randn(64, 256),)
        self.options = check_options(target="cpu -mcpu=x86-64-v3 -threads=2")
        (kernel,) = model_tasks(self.model, self.inputs, {}, self.options)
        self.task: Task = kernel.task
        template = template_for(self.task.graph)
        assert template is not None
        space = template.space(self.task)
        untuned = choice_for(self.task, template, space, None, pretrained(self.task.target)).config
        others = [config for config in space.configs if config != untuned]
        self.configs = dict(zip(ALONE, [untuned, *others], strict=False))
        self.path = folder / "tuning.db"
        self.database = Database(self.path)
        target = str(self.task.target)
        self.database.add(Record(self.task.key, target, self.configs[name], (ALONE[name],), "", 0.0) for name in order)

    @property
    def best(self) -> Config | None:
        """What a compilation with the database takes."""
        record = self.database.best(self.task.key, str(self.task.target))
        return record.config if record is not None else None

    def hold(self, monkeypatch: pytest.MonkeyPatch, kernel: Mapping[str, float], whole: Mapping[str, float], left: float = math.inf) -> Any:
        """The finals where configs take ``kernel`` seconds in the network, by their names, and networks with them ``whole``."""

        def told(seconds: Mapping[str, float], one: bool) -> Callable[[Any, Sequence[Any], int], Mapping[str, float]]:
            def measure(program: Any, leaves: Sequence[Any], calls: int) -> Mapping[str, float]:
                (call,) = program.report().kernels
                (name,) = (name for name, config in self.configs.items() if str(config) == call.config)
                return {"" if one else call.task: seconds[name]}

            return measure

        monkeypatch.setattr(tuning_finals, "_kernel_seconds", told(kernel, False))
        monkeypatch.setattr(tuning_finals, "_whole_seconds", told(whole, True))
        found = TaskResult(self.task, 1, self.configs["far"], ALONE["far"], self.configs["first"], ALONE["first"], 5, 1e-9)
        result = TuningResult((found,), 5, 0, 1.0, False)
        return hold_finals([ModelCall(self.model, self.inputs, {}, self.options)], result, self.database, lambda: left)


@pytest.fixture
def setting(tmp_path: pathlib.Path) -> Setting:
    return Setting(tmp_path)


def test_the_config_that_is_best_in_the_network_is_kept(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"untuned": 3.0e-6, "first": 3.1e-6, "second": 2.8e-6, "outsider": 2.9e-6}
    result = setting.hold(monkeypatch, times, times)
    assert setting.best == setting.configs["second"] == result.tasks[0].best
    assert result.tasks[0].best_seconds == ALONE["second"]
    assert (result.network.untuned, result.network.tuned) == pytest.approx((3.0e-6, 2.8e-6))
    compiled = mlc.compile(setting.model, example_inputs=setting.inputs, target=setting.options.target, database=setting.path)
    assert [kernel.config for program in compiled.report().programs for kernel in program.kernels] == [str(setting.configs["second"])]


def test_what_is_faster_by_itself_only_is_given_up(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"untuned": 3.0e-6, "first": 3.1e-6, "second": 2.99e-6, "outsider": 3.2e-6}
    assert setting.best == setting.configs["first"]
    result = setting.hold(monkeypatch, times, times)
    assert setting.best == setting.configs["untuned"] == result.tasks[0].best
    assert result.network.untuned == result.network.tuned


def test_what_is_as_quick_within_the_noise_does_not_come_before_the_winner(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was measured first by itself."""
    setting = Setting(tmp_path, list(ALONE)[::-1])
    times = {"untuned": 3.0e-6, "first": 2.99e-6, "second": 2.995e-6, "outsider": 3.2e-6}
    result = setting.hold(monkeypatch, times, times)
    assert setting.best == setting.configs["untuned"] == result.tasks[0].best


def test_where_the_whole_does_not_gain_nothing_is_changed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = {"untuned": 3.0e-6, "first": 2.5e-6, "second": 2.8e-6, "outsider": 2.9e-6}
    setting.hold(monkeypatch, kernel, {**kernel, "first": 3.3e-6})
    assert setting.best == setting.configs["untuned"]


def test_without_time_the_search_has_the_last_word(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"untuned": 3.0e-6, "first": 3.1e-6, "second": 2.8e-6, "outsider": 2.9e-6}
    result = setting.hold(monkeypatch, times, times, left=0.0)
    assert result.network is None and setting.best == setting.configs["first"]
    assert len(setting.database) == len(ALONE)


def test_with_little_time_fewer_are_compared(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"untuned": 3.0e-6, "first": 2.9e-6, "second": 2.0e-6, "outsider": 2.1e-6}
    result = setting.hold(monkeypatch, times, times, left=1e-9)
    assert result.network is not None and setting.best == setting.configs["first"]


def test_a_job_ends_in_the_network(tmp_path: pathlib.Path) -> None:
    """A model that changes its buffer and its input: both stay the caller's."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.layer = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            x.mul_(2)
            return torch.softmax(self.layer(x), -1) + self.calls

    model, x = Counting().eval(), torch.randn(32, 64)
    kept = x.clone()
    result = mlc.tune(model, example_inputs=(x,), trials=4, database=tmp_path / "tuning.db")
    assert torch.equal(x, kept) and model.calls.item() == 0
    assert result.network is not None and result.network.tuned <= 1.005 * result.network.untuned
    compiled = mlc.compile(model, example_inputs=(x.clone(),), database=tmp_path / "tuning.db")
    chosen = {kernel.task: kernel.config for program in compiled.report().programs for kernel in program.kernels}
    assert all(chosen[found.task.key] == str(found.best) for found in result.tasks)
