"""``mlc tune`` and ``mlc report``: searching for faster schedules, and what became of a model's kernels."""

from __future__ import annotations

import collections
import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import (
    CalibrationOption,
    Compilation,
    DatabaseOption,
    JsonOption,
    PrecisionOption,
    TargetOption,
    ThreadsOption,
    ToleranceOption,
    calibration_of,
    compile_source,
    err,
    examples,
    is_artifact,
    is_c,
    load_artifact,
    load_source,
    out,
    print_json,
    replace_text,
    working,
)
from .errors import DeviceUnavailableError, OptionError

if TYPE_CHECKING:
    from .autotune import TuningResult
    from .tuning_page import Tuning

INTERRUPTED = 130
"""The exit code that shells know as ended by Ctrl-C."""

app = typer.Typer()


@app.command(
    epilog=examples(
        "mlc tune mlc.benchmarks.models:resnet50 --database tuning.db --trials 64",
        "mlc tune mlc.benchmarks.models:resnet50 mlc.benchmarks.models:bert_base -d tuning.db --time 3600",
        "mlc tune my_model.py:make --export best.jsonl   (what 'mlc compile --database best.jsonl' needs, to be shipped)",
        "mlc compile mlc.benchmarks.models:resnet50 -d tuning.db -o resnet50.mlc   (uses what was found)",
        "mlc tune my_model.py:make --cluster ray=10.0.0.1:6379   (on the nodes of a Ray cluster)",
        "mlc tune my_model.py:make --rpc 10.0.0.1:9190 --rpc-key board --target 'cpu -mcpu=znver4 -threads=8'   (see 'mlc devices')",
    )
)
def tune(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="file.py:function or package.module:function that returns (model, example_inputs), or a .pt2 file; several are one job.",
        ),
    ],
    database: Annotated[pathlib.Path, typer.Option("--database", "-d", help="Tuning database to add to.")] = pathlib.Path("tuning.db"),
    trials: Annotated[int, typer.Option("--trials", "-n", min=1, help="Measurements per kernel, on average.")] = 64,
    seconds: Annotated[float | None, typer.Option("--seconds", "--time", min=0, help="Stop the whole job after this time.")] = None,
    export: Annotated[
        pathlib.Path | None,
        typer.Option(help="Also write the best record of each kernel, as JSON lines, to this file: 'mlc compile --database' reads it."),
    ] = None,
    target: TargetOption = "cpu",
    threads: ThreadsOption = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="ray[=ADDRESS]", show_default=False, help="Measure on the nodes of a Ray cluster.")
    ] = None,
    rpc: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", show_default=False, help="Measure on the devices of this RPC tracker.")
    ] = None,
    rpc_key: Annotated[str | None, typer.Option(metavar="KEY", show_default=False, help="Which devices of the tracker.")] = None,
    cost_model: Annotated[
        pathlib.Path | None,
        typer.Option(help="Guide the search by this model (see 'mlc costmodel train') and not by the one that ships.", show_default=False),
    ] = None,
    precision: PrecisionOption = "fp32",
    calibration: Annotated[
        list[pathlib.Path] | None,
        typer.Option(
            show_default=False,
            help="Samples of the inputs, as in 'mlc compile': int8 kernels that have their ranges differ from those that find them. "
            "Given once for each MODEL, in order.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Search for faster schedules of models' kernels by measuring them, on this machine or on others of the target.

    A kernel that several models share is measured once. Ctrl-C ends the job early (exit code 130): every measurement so far is kept, and
    the same command goes on from there.
    """
    from .tuning_display import watching
    from .tuning_report import tuning_dict, tuning_table

    with _interruptible(database):
        import mlc

        if calibration and len(calibration) != len(models):
            raise OptionError(f"--calibration was given {len(calibration)} times for {len(models)} models; give a file for each, in order")
        sources = [load_source(model) for model in models]
        files: Sequence[pathlib.Path | None] = calibration or [None] * len(sources)
        jobs = [
            mlc.ModelToTune(source.model, source.inputs, source.kwargs, calibration_of(source, file))
            for source, file in zip(sources, files, strict=True)
        ]
        with watching(err, ", ".join(source.name for source in sources)) as tell:
            options = mlc.TuningOptions(
                target=target,
                threads=threads,
                precision=precision,
                trials=trials,
                seconds=seconds,
                database=database,
                progress=tell,
                cluster=cluster,
                rpc=rpc,
                rpc_key=rpc_key,
                cost_model=cost_model,
            )
            result = mlc.tune_models(jobs, options)
    if export is not None:
        _write_winners(export, database, result)
    if json:
        print_json(tuning_dict(result))
    else:
        out.print(tuning_table(result))
    if result.interrupted:
        _tell_how_to_go_on(database)
        raise typer.Exit(INTERRUPTED)


def _write_winners(path: pathlib.Path, database: pathlib.Path, result: TuningResult) -> None:
    """The best record of each of the job's tasks, as the database has it."""
    from .autotune.database import Database
    from .autotune.record_lines import record_line

    with Database(database, create=False) as opened:
        best = [opened.best(found.task.key, str(found.task.target)) for found in result.tasks]
    replace_text(path, "".join(f"{record_line(record)}\n" for record in best if record is not None))


@contextlib.contextmanager
def _interruptible(database: pathlib.Path) -> Iterator[None]:
    """Ctrl-C outside of the search itself, while models are loaded and lowered, or workers start."""
    try:
        yield
    except KeyboardInterrupt:
        _tell_how_to_go_on(database)
        raise typer.Exit(INTERRUPTED) from None


def _tell_how_to_go_on(database: pathlib.Path) -> None:
    if database.exists():
        line = f"stopped: every measurement so far is kept in {database}; the same command goes on from there"
    else:
        line = "stopped before anything was measured; the same command starts again"
    err.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command(
    epilog=examples(
        "mlc report mlc.benchmarks.models:mlp",
        "mlc report resnet50.mlc --json > resnet50.json",
        "mlc report mlc.benchmarks.models:mlp --database tuning.db --html tuning.html",
        "mlc report --database tuning.db --html everything.html",
    )
)
def report(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL|FILE.mlc",
            show_default=False,
            help="A compiled artifact, or file.py:function, package.module:function (returning (model, example_inputs)), a .pt2 file. "
            "With --html it may be left out: everything in the database.",
        ),
    ] = None,
    target: TargetOption = "cpu",
    threads: ThreadsOption = None,
    database: DatabaseOption = None,
    precision: PrecisionOption = "fp32",
    tolerance: ToleranceOption = None,
    calibration: CalibrationOption = None,
    html: Annotated[
        pathlib.Path | None, typer.Option(help="Write a page on how the kernels were tuned, by the records of --database, instead.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a compiled model consists of, and where its time goes, kernel by kernel.

    With --html, how its kernels were tuned, as one page to be read in a browser: search curves, a roofline before and after, where time
    goes, and how well the cost model predicted what was measured. Nothing is measured for it.
    """
    wanted = Compilation(target, threads, database, precision, tolerance, calibration)
    if html is not None:
        if database is None:
            raise OptionError("--html needs --database FILE, where 'mlc tune' keeps its measurements")
        _write_page(html, tuning_of(model, database, wanted), json)
    elif model is None:
        raise OptionError("name a MODEL to report on; without one, --database FILE --html FILE writes a page on everything in a database")
    else:
        compiled = load_artifact(model) if is_artifact(model) else compile_source(load_source(model), wanted)
        _print_kernels(compiled, json)


def _write_page(path: pathlib.Path, tuning: Tuning, json: bool) -> None:
    from .tuning_page import page

    replace_text(path, page(tuning))
    if json:
        print_json(tuning.to_dict())
    else:
        out.print(f"{path}: {tuning}", highlight=False, markup=False, soft_wrap=True)


def tuning_of(model: str | None, database: pathlib.Path, wanted: Compilation) -> Tuning:
    """What ``database`` tells about the kernels of a model or an artifact, or about all of its tasks."""
    from .autotune.database import Database
    from .costmodel import RooflineModel, pretrained
    from .tuning_history import calibrate, read_histories
    from .tuning_page import Tuning

    calls = _kernel_calls(model, wanted) if model is not None else None
    with working("reading records"), Database(database, create=False) as opened:
        histories = read_histories(opened, calls)
        calibrations = (
            calibrate("shipped cost model", lambda task: pretrained(task.target), histories),
            calibrate("roofline", lambda task: RooflineModel(), histories),
        )
    unmeasured = len(calls.keys() - {each.task.key for each in histories}) if calls is not None else 0
    return Tuning(model or "all kernels", str(database), tuple(histories), calibrations, unmeasured)


def _kernel_calls(model: str, wanted: Compilation) -> dict[str, int]:
    """How often a model calls each task, by key."""
    if is_artifact(model):
        keys = [kernel.task for program in load_artifact(model).report().programs for kernel in program.kernels]
    else:
        source = load_source(model)
        with working(f"lowering {source.name}"):
            from .calibration import samples_of
            from .options import check_options
            from .tuning import model_tasks

            samples = samples_of(calibration_of(source, wanted.calibration), source.model)
            options = check_options(target=wanted.target, threads=wanted.threads, precision=wanted.precision, calibration=samples)
            keys = [kernel.task.key for kernel in model_tasks(source.model, source.inputs, source.kwargs, options)]
    return dict(collections.Counter(key for key in keys if key))


def _print_kernels(compiled: Any, json: bool) -> None:
    from .runtime import Report

    found = compiled.report()
    if not is_c(compiled):  # else the device is elsewhere: sizes, but no times
        try:
            with working("profiling"):
                found = Report(found.name, tuple(executable.profile() for executable in compiled.executables))
        except DeviceUnavailableError as error:
            err.print(f"without times: {error}", highlight=False, markup=False, soft_wrap=True)
    if json:
        print_json(found.to_dict())
    else:
        out.print(str(found), highlight=False, markup=False, soft_wrap=True)
