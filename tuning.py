"""``mlc.tune``: the kernels of models, given to the search that measures their configs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
    was measured is kept, and repeating the call goes on from there. ``precision`` and ``calibration`` are those of the compilation to come:
    they decide what its kernels are.

    Kernels are measured on this machine, or on machines of ``target``: the nodes of a Ray cluster (``cluster="ray"`` or
    ``"ray=ADDRESS"``), or the devices that an RPC tracker knows (``rpc="HOST:PORT"``) under ``rpc_key``. Raises DeviceUnavailableError
    when there are none, or none is left, and TargetError when they are of another target. ``cost_model`` is the file of the model that
    guides the search (see ``mlc costmodel train``; None: the one that ships); CostModelError when it cannot be read.
    """
    return tune_models(
        [(model, positional(example_inputs), dict(example_kwargs or {}))],
        target=target,
        trials=trials,
        seconds=seconds,
        database=database,
        threads=threads,
        nonfinite=nonfinite,
        seed=seed,
        cluster=cluster,
        rpc=rpc,
        rpc_key=rpc_key,
        cost_model=cost_model,
        progress=progress,
        precision=precision,
        calibrations=[calibration],
    )


def tune_models(
    models: Iterable[tuple[Any, Sequence[Any], Mapping[str, Any]]],
    *,
    target: str | Target = "cpu",
    trials: int = 64,
    seconds: float | None = None,
    database: str | os.PathLike[str] = "tuning.db",
    threads: int | None = None,
    nonfinite: str = "fast",
    seed: int = 0,
    cluster: str | None = None,
    rpc: str | None = None,
    rpc_key: str | None = None,
    cost_model: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    precision: str | Mapping[str, str] = "fp32",
    calibrations: Sequence[Any] = (),
) -> TuningResult:
    """:func:`tune` for several models in one job, each with its example inputs and keyword arguments.

    A kernel that several of them have is measured once, and weighs as much as it occurs in all of them together. ``calibrations`` has the
    calibration of each model, in order, None for one without.
    """
    from .autotune import tune_tasks
    from .autotune.places import measurer_at
    from .costmodel import load_cost_model

    options = check_options(target=target, threads=threads, nonfinite=nonfinite, precision=precision)
    if options.target.kind is not Kind.CPU:
        raise OptionError(
            f"kernels for '{options.target}' cannot be measured by this version of mlc, only those for 'cpu'; compile without tuning: "
            "templates choose by the target's facts"
        )
    guide = load_cost_model(Path(cost_model)) if cost_model is not None else None
    jobs = list(models)
    if calibrations and len(calibrations) != len(jobs):
        raise OptionError(f"there are {len(calibrations)} calibrations for {len(jobs)} models; give one for each, None where there is none")
    tasks = [
        kernel.task
        for (model, args, kwargs), calibration in zip(jobs, calibrations or [None] * len(jobs), strict=True)
        for kernel in model_tasks(model, args, kwargs, replace(options, calibration=samples_of(calibration, model)))
    ]
    with measurer_at(options.target, cluster=cluster, rpc=rpc, rpc_key=rpc_key, seed=seed) as measurer:
        return tune_tasks(
            tasks,
            trials=trials,
            seconds=seconds,
            database=database,
            model=guide,
            seed=seed,
            progress=progress,
            measurer=measurer,
        )


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
