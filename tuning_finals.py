"""The last round of a tuning job: the best configs of every kernel, timed in the network that they are for.

A kernel that is timed by itself finds its operands where its own last call left them. In a network other kernels have used the caches
since, and its operands come from the core that computed them: a few per cent that the search wins by itself can be lost there. So the
network is compiled with the runners-up as well, and what decides is the time of the kernels within it, and at last that of the whole.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .autotune import Database, TaskResult, TuningResult
from .autotune.choose import choice_for
from .autotune.tuning import NetworkTimes
from .codegen.build import versions
from .codegen.record import Record
from .codegen.space import Config
from .codegen.task import Task
from .codegen.templates import template_for
from .costmodel import pretrained
from .driver import compile_program
from .options import Options
from .runtime.executable import Callee, Executable
from .runtime.states import States

_CHALLENGERS = 5
"""Configs of a kernel that are timed beside the one that it has untuned."""
_NEAR = 1.1
"""A config whose time by itself is further from the best than this is no challenger."""
_GAIN = 0.995
"""A challenger takes the place of the untuned config when its share of that one's time is below: less is within the noise."""
_LOSS = 1.005
"""Challengers are given up together when the whole takes more than this share of the untuned one's time: less is within the noise."""
_LEAD = 0.999
"""The winner's time over that of any other at most, so that what compilations take is what the job told."""
_PLACES = 3
"""How often both programs are made anew to compare the whole: where weights happen to lie in memory makes a difference of 1%."""
_ROUNDS = 9
_ROUND_SECONDS = 0.25
"""In a round each of two programs runs for about so long."""
_MOST_CALLS = 20

Measure: TypeAlias = "Callable[[Callee, Sequence[Any], int], Mapping[str, float]]"
"""Median seconds of so many calls of a program on flat inputs, by what they are spent on."""


@dataclass(frozen=True)
class Contest:
    """A task, the config that it has untuned, and those that may be better, the best by itself first."""

    task: Task
    untuned: Config
    challengers: tuple[Config, ...]
    alone: Mapping[Config, float]
    """Seconds of each config that was measured by itself."""


@dataclass(frozen=True)
class ModelCall:
    """A model, the arguments of a call of it, and how it is compiled."""

    model: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    options: Options


class _Picked:
    """Records that tell a compilation which config each task shall have (see :class:`~mlc.autotune.choose.Records`)."""

    def __init__(self, configs: Mapping[str, Config]) -> None:
        self._configs = configs

    def best(self, task: str, target: str, among: Container[Config] | None = None) -> Record | None:
        config = self._configs.get(task)
        return Record(task, target, config, (1.0,), "", 0.0) if config is not None and (among is None or config in among) else None


def hold_finals(calls: Sequence[ModelCall], result: TuningResult, database: Database, time_left: Callable[[], float]) -> TuningResult:
    """``result`` with the configs that are best in the network, which ``database`` gives from now on.

    It is as it was when ``time_left`` ends first, and where PyTorch runs a part of a model: that part might change the model's buffers.
    What decides enters the database as records of the contestants, with times that have the ratios measured in the network.
    """
    contests = {found.task.key: contest for found in result.tasks if (contest := _contest(found, database)) is not None}
    untuned = {key: contest.untuned for key, contest in contests.items()}
    bases = [_compiled(call, untuned) for call in calls] if contests else []
    if not contests or not all(isinstance(base, Executable) for base in bases):
        return result
    networks = _Networks(calls, bases, time_left)
    try:
        ratios = _ratios(contests, networks)
        winners = {key: _winner(contests[key].untuned, found) for key, found in ratios.items()}
        whole = _whole(networks, untuned, winners)
    except _OutOfTime:
        return result
    loss = whole.tuned / whole.untuned
    if loss > _LOSS:
        # What the challengers cost together is what is known of them.
        ratios = {
            key: {config: _at_least(loss, config, ratio, untuned[key]) for config, ratio in found.items()} for key, found in ratios.items()
        }
        winners, whole = untuned, NetworkTimes(whole.untuned, whole.untuned)
    database.add(record for key, found in ratios.items() for record in _records(contests[key], found, winners[key]))
    tasks = tuple(_with_winner(found, contests.get(found.task.key), winners) for found in result.tasks)
    return dataclasses.replace(result, tasks=tasks, network=whole)


class _OutOfTime(Exception):
    """The job's time ended."""


@dataclass(frozen=True)
class _Networks:
    """The models of a job, each with its program as it is untuned."""

    calls: Sequence[ModelCall]
    bases: Sequence[Callee]
    time_left: Callable[[], float]

    def seconds(self, configs: Mapping[str, Config], measure: Measure) -> Mapping[str, tuple[float, float]]:
        """What ``measure`` tells of the untuned programs and of those with ``configs``, by its keys, summed over all models."""
        total: dict[str, tuple[float, float]] = {}
        for call, base in zip(self.calls, self.bases, strict=True):
            if self.time_left() <= 0:
                raise _OutOfTime
            for key, (old, new) in _in_turns(base, _compiled(call, configs), call, measure).items():
                before, after = total.get(key, (0.0, 0.0))
                total[key] = before + old, after + new
        return total


def _ratios(contests: Mapping[str, Contest], networks: _Networks) -> dict[str, dict[Config, float]]:
    """For each task, the time of its contestants in the networks over that of the untuned one; of fewer contestants where time is short."""
    ratios: dict[str, dict[Config, float]] = {key: {contest.untuned: 1.0} for key, contest in contests.items()}
    begin = time.monotonic()
    for place in range(max(len(contest.challengers) for contest in contests.values())):
        # The comparison of the whole takes about as long for each of its places.
        if place and networks.time_left() < (1 + _PLACES) * (time.monotonic() - begin) / place:
            break
        picked = {key: contest.challengers[place] for key, contest in contests.items() if place < len(contest.challengers)}
        seconds = networks.seconds({key: picked.get(key, contest.untuned) for key, contest in contests.items()}, _kernel_seconds)
        for key, config in picked.items():
            before, after = seconds.get(key, (0.0, 0.0))
            if before > 0:
                ratios[key][config] = after / before
    return ratios


def _whole(networks: _Networks, untuned: Mapping[str, Config], winners: Mapping[str, Config]) -> NetworkTimes:
    """Means over the places where programs come to lie; over fewer where time is short."""
    pairs = []
    for number in range(_PLACES):
        if number and networks.time_left() <= 0:
            break
        bases = [_compiled(call, untuned) for call in networks.calls]
        pairs.append(dataclasses.replace(networks, bases=bases).seconds(winners, _whole_seconds)[""])
    return NetworkTimes(*map(statistics.fmean, zip(*pairs, strict=True)))


def _contest(found: TaskResult, database: Database) -> Contest | None:
    """None where nothing challenges the untuned config."""
    task, target = found.task, str(found.task.target)
    template = template_for(task.graph, task.target.kind)
    if template is None or found.best is None:
        return None
    space = template.space(task)
    untuned = choice_for(task, template, space, None, pretrained(task.target)).config
    alone = {record.config: record.median for record in database.records(task.key, target) if record.times and record.config in space}
    order = sorted(alone, key=lambda config: alone[config])
    near = [config for config in order if config != untuned and alone[config] <= _NEAR * alone[order[0]]]
    return Contest(task, untuned, tuple(near[:_CHALLENGERS]), alone) if near else None


def _compiled(call: ModelCall, configs: Mapping[str, Config]) -> Callee:
    return compile_program(call.model, call.args, call.kwargs, dataclasses.replace(call.options, database=_Picked(configs)))


def _in_turns(base: Callee, other: Callee, call: ModelCall, measure: Measure) -> dict[str, tuple[float, float]]:
    """Of two programs that run by turns: median seconds of what ``measure`` tells of each, by its keys."""
    programs = (base, other)
    # Copies: a model may change its inputs.
    leaves = [program.bind(*copy.deepcopy((call.args, dict(call.kwargs)))) for program in programs]
    seconds = sum(_whole_seconds(program, given, 1)[""] for program, given in zip(programs, leaves, strict=True))
    calls = max(1, min(_MOST_CALLS, int(2 * _ROUND_SECONDS / seconds)))
    samples: list[list[Mapping[str, float]]] = [[], []]
    for number in range(_ROUNDS):
        for place in (0, 1) if number % 2 else (1, 0):
            samples[place].append(measure(programs[place], leaves[place], calls))
    return {
        key: (statistics.median(one[key] for one in samples[0]), statistics.median(one[key] for one in samples[1])) for key in samples[0][0]
    }


def _kernel_seconds(program: Callee, leaves: Sequence[Any], calls: int) -> Mapping[str, float]:
    """Seconds of all occurrences of each task."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for kernel in program.profile(leaves, calls=calls, warmup=1).kernels:
        seconds[kernel.task] += kernel.seconds or 0.0
    return seconds


def _whole_seconds(program: Callee, leaves: Sequence[Any], calls: int) -> Mapping[str, float]:
    """Median seconds of a call, under no name."""
    states, times = States(), []
    for _ in range(calls + 1):
        states.reset()  # else a cache is full at some time
        begin = time.perf_counter()
        program.run(leaves, states)
        times.append(time.perf_counter() - begin)
    return {"": statistics.median(times[1:])}


def _at_least(loss: float, config: Config, ratio: float, untuned: Config) -> float:
    return 1.0 if config == untuned else max(ratio, loss)


def _winner(untuned: Config, ratios: Mapping[Config, float]) -> Config:
    best = min(ratios, key=lambda config: ratios[config])
    return best if ratios[best] < _GAIN else untuned


def _records(contest: Contest, ratios: Mapping[Config, float], winner: Config) -> list[Record]:
    """One for each contestant: the winner has a better time than any config by itself, so that none that stayed out is before it, and the
    others, of which some may be as quick within the noise, have times in proportion but behind it."""
    best = _LEAD * min(contest.alone.values())
    seconds = {config: best * max(ratio / ratios[winner], 1 / _LEAD) for config, ratio in ratios.items()} | {winner: best}
    now = time.time()
    return [Record(contest.task.key, str(contest.task.target), config, (each,), versions(), now) for config, each in seconds.items()]


def _with_winner(found: TaskResult, contest: Contest | None, winners: Mapping[str, Config]) -> TaskResult:
    if contest is None:
        return found
    winner = winners[found.task.key]
    return dataclasses.replace(found, best=winner, best_seconds=contest.alone.get(winner, found.best_seconds), compared=True)
