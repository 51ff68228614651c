"""``mlc.tune``: the kernels of models, given to the search that measures their configs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import positional
from .calibration import flat_samples, require_like, samples_of
from .codegen.target import Kind, Target
from .driver import lower_imported
from .errors import OptionError
from .options import Options, check_options

if TYPE_CHECKING:
    from .autotune import Progress, TuningResult
    from .codegen.kernels import KernelNode
    from .frontend import Imported


def tune(
    model: Any,
    *,
    example_inputs: Sequence[Any] | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    target: str | Target = "cpu",
    trials: int = 64,
    seconds: float | None = None,
    database: str | os.PathLike[str] = "tuning.db",
    threads: int | None = None,
    nonfinite: str = "fast",
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    cluster: str | None = None,
    rpc: str | None = None,
    rpc_key: str | None = None,
    cost_model: str | os.PathLike[str] | None = None,
    precision: str | Mapping[str, str] = "fp32",
    calibration: Any = None,
) -> TuningResult:
    """Measures kernel configs of ``model`` and records them in ``database``, for ``compile(..., database=...)`` to use.

    ``trials`` is how many configs are measured per kernel on average, ``seconds`` bounds the whole job. Ctrl-C ends it early; what
    was measured is kept, and repeating the call goes on from there. Where this machine measures, the best configs of each kernel are timed
    in the model itself at last: one that is faster by itself only is not kept, and none where the whole does not gain.
    ``precision`` and ``calibration`` are those of the compilation to come: they decide what its kernels are.

    Kernels are measured on this machine, or on machines of ``target``: the nodes of a Ray cluster (``cluster="ray"`` or
    ``"ray=ADDRESS"``), or the devices that an RPC tracker knows (``rpc="HOST:PORT"``) under ``rpc_key``. Raises DeviceUnavailableError
    when there are none, or none is left, and TargetError when they are of another target. ``cost_model`` is the file of the model that
    guides the search (see ``mlc costmodel train``; None: the one that ships); CostModelError when it cannot be read.
    """
    options = TuningOptions(
        target=target,
        threads=threads,
        nonfinite=nonfinite,
        precision=precision,
        trials=trials,
        seconds=seconds,
        database=database,
        seed=seed,
        progress=progress,
        cluster=cluster,
        rpc=rpc,
        rpc_key=rpc_key,
        cost_model=cost_model,
    )
    return tune_models([ModelToTune(model, positional(example_inputs), dict(example_kwargs or {}), calibration)], options)


_SEARCH_SHARE = 0.75
"""Of the seconds of a job that the search may take; the rest is for comparing what it found in the networks."""


@dataclass(frozen=True)
class ModelToTune:
    """A model, the arguments of a call of it, and the calibration of the compilation to come."""

    model: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    calibration: Any = None


@dataclass(frozen=True)
class TuningOptions:
    """How a job searches, what for, and where it measures: the arguments of :func:`tune` that have these names."""

    target: str | Target = "cpu"
    threads: int | None = None
    nonfinite: str = "fast"
    precision: str | Mapping[str, str] = "fp32"
    trials: int = 64
    seconds: float | None = None
    database: str | os.PathLike[str] = "tuning.db"
    seed: int = 0
    progress: Callable[[Progress], None] | None = None
    cluster: str | None = None
    rpc: str | None = None
    rpc_key: str | None = None
    cost_model: str | os.PathLike[str] | None = None


def tune_models(models: Iterable[ModelToTune], options: TuningOptions = TuningOptions()) -> TuningResult:
    """:func:`tune` for several models in one job: a kernel that several of them have is measured once, and weighs as much as it occurs in
    all of them together."""
    from .autotune import Database, tune_tasks
    from .autotune.places import measurer_at
    from .costmodel import load_cost_model
    from .tuning_finals import ModelCall, hold_finals

    checked = check_options(target=options.target, threads=options.threads, nonfinite=options.nonfinite, precision=options.precision)
    if checked.target.kind is not Kind.CPU:
        raise OptionError(
            f"kernels for '{checked.target}' cannot be measured by this version of mlc, only those for 'cpu'; compile without tuning: "
            "templates choose by the target's facts"
        )
    guide = load_cost_model(Path(options.cost_model)) if options.cost_model is not None else None
    calls = [
        ModelCall(each.model, tuple(each.args), each.kwargs, replace(checked, calibration=samples_of(each.calibration, each.model)))
        for each in models
    ]
    tasks = [kernel.task for call in calls for kernel in model_tasks(call.model, call.args, call.kwargs, call.options)]
    here = options.cluster is None and options.rpc is None
    begin = time.monotonic()
    latest: Progress | None = None

    def tell(progress: Progress) -> None:
        nonlocal latest
        latest = progress
        if options.progress is not None:
            options.progress(progress)

    def time_left() -> float:
        return math.inf if options.seconds is None else options.seconds - (time.monotonic() - begin)

    with (
        Database(options.database) as database,
        measurer_at(checked.target, cluster=options.cluster, rpc=options.rpc, rpc_key=options.rpc_key, seed=options.seed) as measurer,
    ):
        result = tune_tasks(
            tasks,
            trials=options.trials,
            seconds=None if options.seconds is None else options.seconds * (_SEARCH_SHARE if here else 1.0),
            database=database,
            model=guide,
            seed=options.seed,
            progress=tell,
            measurer=measurer,
        )
        if not here or result.interrupted:
            return result
        if latest is not None:
            tell(replace(latest, in_finals=True, elapsed=time.monotonic() - begin, seconds_budget=options.seconds))
        try:
            result = hold_finals(calls, result, database, time_left)
        except KeyboardInterrupt:
            result = replace(result, interrupted=True)
        return replace(result, elapsed=time.monotonic() - begin)


def model_tasks(model: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options) -> list[KernelNode]:
    """The kernel calls ``model`` compiles to, in order: what there is to tune. Parts that PyTorch runs have none."""
    from .codegen.assembly import tasks_of
    from .division import Division, divide
    from .frontend import export_model

    require_like(options.calibration, model, args, dynamic=False)
    exported = export_model(model, args, kwargs)

    def tasks(imported: Imported) -> list[KernelNode]:
        graph = lower_imported(imported, options, flat_samples(options.calibration, exported, imported)).graph
        return tasks_of(graph, options.target, threads=options.threads, numerics=options.numerics)

    made = divide(exported, tasks, strict=options.strict)
    return [kernel for part in made.made.values() for kernel in part] if isinstance(made, Division) else made
