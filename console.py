"""What the commands of :mod:`.cli` share: consoles, options, and how models and artifacts are loaded and compiled."""

from __future__ import annotations

import contextlib
import json as json_module
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .errors import DatabaseError

if TYPE_CHECKING:
    from .model_source import ModelSource

out = Console()
err = Console(stderr=True)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="file.py:function or package.module:function that returns (model, example_inputs), or a .pt2 file.",
    ),
]
ModelOrArtifact = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|FILE.mlc",
        show_default=False,
        help="A compiled artifact, or file.py:function, package.module:function (returning (model, example_inputs)), a .pt2 file.",
    ),
]
TargetOption = Annotated[str, typer.Option("--target", "-t", help="What to compile for; 'mlc targets' lists what there is.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", "-j", min=1, help="Threads to use; all cores unless given.")]
DatabaseOption = Annotated[
    pathlib.Path | None,
    typer.Option("--database", "-d", help="Tuning database, or JSON lines exported from one, to take the best schedules from."),
]
PrecisionOption = Annotated[str, typer.Option("--precision", "-p", help="A mode such as w8, PATH=MODE with commas between, or auto.")]
ToleranceOption = Annotated[
    float | None, typer.Option("--tolerance", help="The relative error of the outputs that --precision auto may cause (0.01).")
]
CalibrationOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--calibration",
        show_default=False,
        help="Samples of the inputs, for int8 and auto: an .npz or .safetensors file of arrays by the inputs' names or positions, samples "
        "one after the other along the first axis; or a .pt file of such a dict or of a list of samples.",
    ),
]
SparsityOption = Annotated[
    str, typer.Option("--sparsity", help="auto: leave out zeros in the weights where that is faster; off: compute with them.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def examples(*lines: str) -> str:
    return "[bold]Examples[/]\n\n" + "\n\n".join(f"  {line}" for line in lines)


def load_source(text: str) -> ModelSource:
    with working(f"loading {text}"):
        from .model_source import load_model

        return load_model(text)


@dataclass(frozen=True)
class Compilation:
    """How a command is told to compile: the options of these names."""

    target: str
    threads: int | None
    database: pathlib.Path | None
    precision: str
    tolerance: float | None
    calibration: pathlib.Path | None
    sparsity: str = "auto"


def compile_source(source: ModelSource, wanted: Compilation) -> Any:
    """The compiled model; DatabaseError where its database is missing."""
    import mlc

    if wanted.database is not None and not wanted.database.exists():
        raise DatabaseError(f"there is no tuning database '{wanted.database}'; 'mlc tune' makes one")
    with working(f"compiling {source.name}") as progress:
        return mlc.compile(
            source.model,
            example_inputs=source.inputs,
            example_kwargs=dict(source.kwargs) or None,
            target=wanted.target,
            threads=wanted.threads,
            database=wanted.database,
            precision=wanted.precision,
            tolerance=wanted.tolerance,
            calibration=calibration_of(source, wanted.calibration),
            sparsity=wanted.sparsity,
            strict=True,
            progress=progress,
        )


def calibration_of(source: ModelSource, path: pathlib.Path | None) -> Any:
    """The samples in a calibration file, for the model that they are of."""
    if path is None:
        return None
    from .calibration_file import read_calibration

    return read_calibration(path, source.model, source.inputs)


def is_c(compiled: Any) -> bool:
    """Whether a model was compiled to C sources for a microcontroller."""
    return any(program.footprint is not None for program in compiled.report().programs)


def is_artifact(text: str) -> bool:
    return text.endswith(".mlc")


def load_artifact(text: str) -> Any:
    import mlc

    return mlc.load(text)


@contextlib.contextmanager
def working(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Shows that something goes on, and for how long; the function it gives takes (done, of how many, what is being done)."""
    if not err.is_terminal:
        yield lambda done, total, label: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        bar = progress.add_task(escape(what), total=None)

        def tell(done: int, total: int, label: str) -> None:
            progress.update(bar, completed=done, total=total, description=escape(f"{what}: {label}"))

        yield tell


def print_json(content: object) -> None:
    print(json_module.dumps(content, indent=1))


def size_text(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def replace_text(path: pathlib.Path, text: str) -> None:
    """Writes a file in one step, so that whatever ends this process leaves the earlier one or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
