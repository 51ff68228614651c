"""The command line: ``mlc compile | run | tune | db | devices | costmodel | bench | report | fuzz | targets | cache``.

Results go to standard output, as a table or with ``--json`` as one JSON document; progress and errors go to standard error. The
exit code is 0, 1 for an error that mlc explains or a benchmark that went wrong, 2 for a command that was not understood, 130 for a
tuning job that Ctrl-C ended.
"""

from __future__ import annotations

import contextlib
import json as json_module
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from . import costmodel_commands, database_commands, device_commands, tuning_commands
from .console import (
    CalibrationOption,
    Compilation,
    DatabaseOption,
    JsonOption,
    Model,
    ModelOrArtifact,
    PrecisionOption,
    SparsityOption,
    TargetOption,
    ThreadsOption,
    ToleranceOption,
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
    size_text,
    working,
)
from .errors import Error, OptionError

if TYPE_CHECKING:
    from .benchmarks.report import Report
    from .module import CompiledModel

app = typer.Typer(
    name="mlc",
    help="Compile PyTorch models to tuned native code, run and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(database_commands.app)
app.add_typer(tuning_commands.app)
app.add_typer(costmodel_commands.app)
app.add_typer(device_commands.app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; errors of mlc become one message without a traceback."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="mlc")
    except Error as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command(
    epilog=examples(
        "mlc compile mlc.benchmarks.models:resnet50 -o resnet50.mlc",
        "mlc compile my_model.py:make -o my.mlc --threads 4 --database tuning.db",
        "mlc compile my_model.py:make -o my.mlc --precision 'decoder=w4,decoder.head=w8'",
        "mlc compile my_model.py:make -o my.mlc --precision auto --tolerance 0.005 --html precision.html",
        "mlc compile my_model.py:make -o my.mlc --precision int8 --calibration samples.npz",
        "mlc compile exported.pt2 -o exported.mlc --target 'cpu -mcpu=x86-64-v3 -threads=8'",
        "mlc compile my_model.py:make --target 'cortex-m4 -flash=1M -ram=256K' -o folder/   (writes C99)",
    )
)
def compile(
    model: Model,
    output: Annotated[pathlib.Path | None, typer.Option("--output", "-o", help="Artifact to write; MODEL's name unless given.")] = None,
    target: TargetOption = "cpu",
    threads: ThreadsOption = None,
    database: DatabaseOption = None,
    precision: PrecisionOption = "fp32",
    tolerance: ToleranceOption = None,
    calibration: CalibrationOption = None,
    html: Annotated[
        pathlib.Path | None, typer.Option(help="Write a page on what --precision auto decided, layer by layer.", show_default=False)
    ] = None,
    sparsity: SparsityOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compile a model into an artifact that runs without PyTorch.

    The artifact is one file: native code, packed weights and the signature. 'mlc run' and mlc.load() take it. For microcontrollers
    an output that does not end in .mlc is a folder to write C sources to.
    """
    source = load_source(model)
    path = output or pathlib.Path(f"{source.name}.mlc")
    begin = time.perf_counter()
    compiled = compile_source(source, Compilation(target, threads, database, precision, tolerance, calibration, sparsity))
    if html is not None:
        _write_precision(html, source.name, compiled)
    files = [path]
    with working(f"writing {path}"):
        if is_c(compiled) and path.suffix != ".mlc":
            files = list(compiled.export_c(path, source.name))
        else:
            compiled.save(path)
    seconds = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in files)
    if json:
        report = compiled.report().to_dict()
        print_json({"artifact": str(path), "files": [str(file) for file in files], "bytes": size, "seconds": seconds, "report": report})
        return
    out.print(f"compiled [bold]{escape(source.name)}[/] in {seconds:.1f} s: {escape(str(path))}, {size_text(size)}")
    if is_c(compiled):
        out.print(str(compiled.report()), highlight=False, markup=False, soft_wrap=True)


def _write_precision(path: pathlib.Path, name: str, compiled: CompiledModel) -> None:
    """The page on modes and errors; OptionError where nothing was decided."""
    from .precision_page import precision_page

    decided = compiled.report().precision
    if decided is None:
        raise OptionError("--html shows what --precision auto decided; give that as well")
    replace_text(path, precision_page(name, decided))


@app.command(
    epilog=examples(
        "mlc run mlc.benchmarks.models:mobilenet_v2",
        "mlc run my_model.py:make --repeat 200 --json",
        "mlc run resnet50.mlc --input image.npy --output logits.npz",
    )
)
def run(
    model: ModelOrArtifact,
    inputs: Annotated[
        list[pathlib.Path] | None,
        typer.Option("--input", "-i", help="A .npy file per input, in order; the example or random inputs unless given."),
    ] = None,
    output: Annotated[pathlib.Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = None,
    repeat: Annotated[int, typer.Option("--repeat", "-n", min=1, help="Timed calls.")] = 20,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare with PyTorch (not for artifacts).")] = True,
    target: TargetOption = "cpu",
    threads: ThreadsOption = None,
    database: DatabaseOption = None,
    precision: PrecisionOption = "fp32",
    tolerance: ToleranceOption = None,
    calibration: CalibrationOption = None,
    sparsity: SparsityOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run a model or an artifact, time it, and check it against PyTorch.

    A model is compiled first (kernels compiled before come from the cache). An artifact runs without importing PyTorch; without
    --input it gets random numbers, and zeros for integers.
    """
    from .running import run_artifact, run_model

    if is_artifact(model):
        with working(f"running {model}"):
            result = run_artifact(pathlib.Path(model).stem, load_artifact(model), inputs or [], repeat, output)
    else:
        source = load_source(model)
        compiled = compile_source(source, Compilation(target, threads, database, precision, tolerance, calibration, sparsity))
        with working(f"running {source.name}"):
            result = run_model(source, compiled, inputs or [], repeat, output, check, exact=precision == "fp32")
    if json:
        print_json(result.to_dict())
    else:
        out.print(result.table())
    if not result.sound:
        err.print("[bold red]error:[/] the outputs differ from PyTorch's by more than the tolerance", highlight=False)
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "mlc bench                         (eight models, mlc and eager PyTorch)",
        "mlc bench resnet50 my_model.py:make --rounds 9",
        "mlc bench kernels --threads 1",
        "mlc bench gpt2 --precision w4",
        "mlc bench resnet50 --database tuned.db --against onnxruntime,openvino",
        "mlc bench gpt2 --systems mlc,eager,inductor --json > gpt2.json",
        "mlc bench --suite cpu --against eager,inductor,onnxruntime,openvino --save cpu.json --html cpu.html",
        "mlc bench --suite cpu --against eager,inductor,onnxruntime,openvino --save cpu.json --resume",
    )
)
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|MODEL]...",
            show_default=False,
            help="Models of the zoo (mlc.benchmarks.models), groups of them (models, cpu, all, kernels), or MODELs of your own.",
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="A group of models, as if it were a NAME.", show_default=False)] = None,
    systems: Annotated[
        str, typer.Option(help="What to time, with commas between: mlc, eager, inductor, inductor-tuned, onnxruntime, openvino.")
    ] = "mlc,eager",
    against: Annotated[
        str | None,
        typer.Option(
            help="Instead of --systems: mlc and these peers. Of inductor, the default and the tuned configuration.", show_default=False
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", "-j", min=1, help="Threads of every system; all cores unless given.")] = None,
    precision: PrecisionOption = "fp32",
    tolerance: ToleranceOption = None,
    calibration: CalibrationOption = None,
    database: DatabaseOption = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds around the systems.")] = 5,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of calls per system and round.")] = 0.5,
    patience: Annotated[float, typer.Option(min=1, help="Seconds after which a system that is not ready is given up.")] = 1800.0,
    save: Annotated[
        pathlib.Path | None, typer.Option("--save", "-o", help="Also write the JSON document to this file, after each model.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the models that the file of --save has already.")] = False,
    html: Annotated[pathlib.Path | None, typer.Option(help="Also write a page with charts to this file, after each model.")] = None,
    json: JsonOption = False,
) -> None:
    """Time mlc and other systems side by side, each in a process of its own, and check their outputs.

    Every round goes around all systems; figures are medians, the speed-up is over eager PyTorch, and errors are against float64. The
    precision and the database are mlc's; the others compute in float32. A peer that cannot run a model is reported with its reason, and
    does not count.
    """
    from .benchmarks import machine
    from .benchmarks.models import expand
    from .benchmarks.page import page
    from .benchmarks.progress import steps
    from .benchmarks.report import Plan
    from .benchmarks.saved import earlier_report
    from .benchmarks.suite import run as run_plan
    from .benchmarks.systems import BASELINE, OURS
    from .benchmarks.systems import against as systems_against
    from .benchmarks.tables import table

    chosen = [*(names or []), *([suite] if suite else [])]
    plan = Plan(
        expand(chosen or ["models"]),
        systems=systems_against(_listed(against)) if against else _listed(systems),
        threads=threads or machine.usable_cores(),
        rounds=rounds,
        seconds=seconds,
        patience=patience,
        precision=precision,
        tolerance=tolerance,
        calibration=str(calibration) if calibration is not None else None,
        database=str(database.resolve()) if database is not None else None,
    )
    earlier = earlier_report(save, plan) if resume else None
    if calibration is not None and not calibration.is_file():
        raise OptionError(f"there is no calibration file '{calibration}'; give one with samples of the model's inputs")
    with working("measuring what this machine can do"):
        here = machine.measure(plan.threads)

    def write(report: Report) -> None:
        if save is not None:
            replace_text(save, json_module.dumps(report.to_dict(), indent=1) + "\n")
        if html is not None:
            replace_text(html, page(report))

    done = earlier.comparisons if earlier is not None else ()
    if earlier is not None and earlier.machine.processor == here.processor:
        here = here.at_least(earlier.machine.peaks)
    left = set(plan.models) - {comparison.model for comparison in done}
    with steps(err, plan.steps_each * len(left)) as progress:
        result = run_plan(plan, here, progress, write, done)
    write(result)
    if json:
        print_json(result.to_dict())
    else:
        out.print(table(result))
    if not all(c.sound(system) for c in result.comparisons for system in (OURS, BASELINE) if system in c.timings):
        raise typer.Exit(1)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@app.command(epilog=examples("mlc targets", "mlc targets --json", "mlc compile MODEL --target 'cpu -mcpu=znver4 -threads=2'"))
def targets(json: JsonOption = False) -> None:
    """List the targets, and what mlc knows about this machine."""
    from .codegen.platforms.families import FAMILIES
    from .codegen.target import Target

    here: Target | None = None
    with contextlib.suppress(Error):  # not an x86-64 machine: it can still compile for one
        here = Target.parse("cpu")
    known = [target for family in FAMILIES.values() for target in family.listed()]
    if json:
        print_json({"host": asdict(here) if here else None, "targets": [asdict(target) for target in known]})
        return
    if here is not None:
        out.print(f"this machine: [bold]{escape(str(here))}[/]", highlight=False)
    grid = Table(box=None, pad_edge=False)
    for heading in ("target", "vectors", "L1", "L2", "L3"):
        grid.add_column(heading, justify="left" if heading == "target" else "right")
    for target in known:
        sizes = (size_text(size) if size else "-" for size in (target.l1_bytes, target.l2_bytes, target.l3_bytes))
        grid.add_row(str(target).removesuffix(f" -threads={target.threads}"), f"{target.vector_bytes * 8} bit", *sizes)
    out.print(grid)
    options = "cpu -threads=N -l1=KiB -l2=KiB -l3=KiB; cortex-m -flash=SIZE -ram=SIZE -clock=MHz; cuda -arch=sm_XY -board=NAME"
    out.print(f"further options: {options}", highlight=False)


@app.command(
    epilog=examples(
        "mlc fuzz --seconds 60",
        "mlc fuzz --seed 7 --count 200 --output reproducers/",
        "mlc fuzz --seed 7 --start 133 --count 1   (one case again)",
    )
)
def fuzz(
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this time; 60 unless a count is given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Cases follow from the seed and their number.")] = 0,
    count: Annotated[int | None, typer.Option(min=1, help="Cases to run.")] = None,
    start: Annotated[int, typer.Option(min=0, help="Number of the first case.")] = 0,
    output: Annotated[pathlib.Path | None, typer.Option("--output", "-o", help="Folder for reproducers of what fails.")] = None,
    json: JsonOption = False,
) -> None:
    """Check random graphs and torch programs against the interpreter and eager PyTorch, stage by stage.

    Every pass, code generation and the native program are compared with a float64 interpretation. What fails is made small and written
    to --output, as IR text with its seed and the stage that broke it. The exit code is 1 when something failed.
    """
    from .fuzz import Campaign, CaseResult

    if seconds is None and count is None:
        seconds = 60.0
    campaign = Campaign(seed=seed, start=start, count=count, seconds=seconds, folder=output)
    with working("fuzzing") as tell:

        def progress(result: CaseResult) -> None:
            tell(result.number + 1 - start, count or 0, f"case {result.number}")
            if result.failure is not None and not json:
                out.print(result.reproducer, highlight=False, markup=False, soft_wrap=True)

        summary = campaign.run(progress)
    if json:
        print_json(summary.to_dict())
    else:
        out.print(
            f"seed {seed}: {summary.cases} cases in {summary.seconds:.0f} s, {len(summary.failures)} failed, "
            f"{summary.refused.total()} not supported, {summary.undefined} undefined",
            highlight=False,
        )
        for reason, times in summary.refused.most_common(5):
            out.print(f"  {times} times: {reason[:160]}", highlight=False, markup=False)
    if summary.failures:
        raise typer.Exit(1)


@app.command(epilog=examples("mlc cache", "mlc cache --clear"))
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete everything in it.")] = False,
    json: JsonOption = False,
) -> None:
    """Show or clear the cache of compiled kernels and extracted artifacts ($MLC_CACHE_DIR, else ~/.cache/mlc)."""
    from .codegen.build import cache_directory

    folder = cache_directory()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    if clear and folder.is_dir():
        shutil.rmtree(folder)
    if json:
        print_json({"path": str(folder), "files": len(files), "bytes": size, "cleared": clear})
    else:
        out.print(f"{'deleted ' if clear else ''}{escape(str(folder))}: {len(files)} files, {size_text(size)}", highlight=False)


if __name__ == "__main__":
    main()
