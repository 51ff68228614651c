"""``mlc db``: what a tuning database holds, and moving records between databases."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .console import JsonOption, err, examples, out, print_json, replace_text
from .errors import OptionError

if TYPE_CHECKING:
    from .autotune.database import Database

app = typer.Typer(
    name="db",
    help="Look at tuning databases, and move records between them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Path = Annotated[pathlib.Path, typer.Argument(metavar="DATABASE", show_default=False, help="The file that 'mlc tune --database' wrote.")]
_SQLITE = b"SQLite format 3\0"
"""What SQLite's files begin with."""
_SHOWN = 3
"""Refused lines whose reasons are printed."""


def _open(path: pathlib.Path, *, create: bool = False) -> Database:
    from .autotune.database import Database

    return Database(path, create=create)


@app.command(epilog=examples("mlc db stats tuning.db", "mlc db stats tuning.db --json"))
def stats(database: Path, json: JsonOption = False) -> None:
    """Count tasks, records and failures, by target."""
    with _open(database) as opened:
        found = opened.statistics()
    if json:
        print_json({"tasks": found.tasks, "records": found.records, "failed": found.failed, "targets": list(found.targets)})
        return
    out.print(f"{found.tasks} tasks, {found.records} records, {found.failed} of them failed", highlight=False)
    for target in found.targets:
        out.print(f"  {target}", highlight=False, markup=False)


@app.command(epilog=examples("mlc db best tuning.db", "mlc db best tuning.db --target 'cpu -mcpu=znver4 -threads=2' --json"))
def best(
    database: Path,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Only records of this target, as 'mlc db stats' prints it.")] = None,
    json: JsonOption = False,
) -> None:
    """List the fastest config of every task, slowest task first."""
    with _open(database) as opened:
        tasks = opened.tasks()
        found = sorted(opened.winners(target), key=lambda record: -record.median)
    names = {key: "+".join(node.op for node in task.graph.nodes if node.op != "constant") for key, task in tasks.items()}
    if json:
        print_json(
            [
                {
                    "task": record.task,
                    "operations": names.get(record.task),
                    "target": record.target,
                    "config": str(record.config),
                    "seconds": record.median,
                }
                for record in found
            ]
        )
        return
    grid = Table(box=None, pad_edge=False)
    for heading in ("task", "operations", "time, us", "config"):
        grid.add_column(heading, justify="right" if heading.startswith("time") else "left", overflow="fold")
    for record in found:
        grid.add_row(record.task[:12], escape(names.get(record.task, "?")), f"{record.median * 1e6:.1f}", escape(str(record.config)))
    out.print(grid)


@app.command(
    epilog=examples(
        "mlc db export tuning.db > records.jsonl",
        "mlc db export tuning.db --best -o best.jsonl",
        "mlc compile my_model.py:make --database best.jsonl   (reads such a file like a database)",
    )
)
def export(
    database: Path,
    output: Annotated[pathlib.Path | None, typer.Option("--output", "-o", help="File to write; standard output unless given.")] = None,
    best: Annotated[bool, typer.Option("--best", help="Only the fastest record of each task and target, to be shipped.")] = False,
) -> None:
    """Write everything as JSON lines, which 'mlc db import' and '--database' of the other commands read."""
    from .autotune.record_lines import record_line

    with _open(database) as opened:
        lines = map(record_line, opened.winners()) if best else opened.export_lines()
        if output is None:
            for line in lines:
                print(line)
            return
        replace_text(output, "".join(f"{line}\n" for line in lines))


@app.command(
    "import",
    epilog=examples(
        "mlc db import tuning.db records.jsonl",
        "mlc db import all.db machine1.db machine2.db   (merges)",
        "ssh board cat records.jsonl | mlc db import tuning.db -",
    ),
)
def import_(
    database: Path,
    sources: Annotated[list[str], typer.Argument(metavar="FILE...", help="JSON lines, other databases, or - for standard input.")],
    json: JsonOption = False,
) -> None:
    """Add records of other files to a database, which is made if there is none. What cannot be read is refused line by line."""
    added = known = 0
    refused: list[str] = []
    with _open(database, create=True) as opened:
        for source in sources:
            result = opened.import_lines(_lines(source))
            added, known = added + result.added, known + result.known
            refused += [f"{source}: {reason}" for reason in result.refused]
    if json:
        print_json({"added": added, "known": known, "refused": refused})
    else:
        out.print(f"{added} records added, {known} known already, {len(refused)} lines refused", highlight=False)
        for reason in refused[:_SHOWN]:
            err.print(f"  {reason}", highlight=False, markup=False, soft_wrap=True)
    if refused:
        raise typer.Exit(1)


def _lines(source: str) -> Iterable[str]:
    """The lines of a file, of standard input, or of what another database exports."""
    if source == "-":
        return sys.stdin
    path = pathlib.Path(source)
    try:
        with path.open("rb") as file:
            is_database = file.read(len(_SQLITE)) == _SQLITE
        return _exported(path) if is_database else path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise OptionError(f"'{source}' cannot be read: {error.strerror}") from error


def _exported(path: pathlib.Path) -> Iterator[str]:
    with _open(path) as other:
        yield from other.export_lines()


@app.command(epilog=examples("mlc db prune tuning.db --keep 8"))
def prune(
    database: Path,
    keep: Annotated[int, typer.Option(min=1, help="Records to keep of each task and target: the fastest, and all that failed.")] = 8,
    json: JsonOption = False,
) -> None:
    """Remove slow records."""
    with _open(database) as opened:
        removed = opened.prune(keep)
        left = len(opened)
    if json:
        print_json({"removed": removed, "records": left})
    else:
        out.print(f"{removed} records removed, {left} left", highlight=False)
