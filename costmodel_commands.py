"""``mlc costmodel``: making data sets of measured kernels, training cost models on them, and judging these."""

from __future__ import annotations

import enum
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .console import JsonOption, TargetOption, err, examples, out, print_json, working

if TYPE_CHECKING:
    from .costmodel import CostModel
    from .costmodel.comparison import Comparison
    from .costmodel.sampling import Family

app = typer.Typer(
    name="costmodel",
    help="Measure kernels to learn from, train cost models, and judge them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataSetPath = Annotated[
    pathlib.Path, typer.Argument(metavar="DATASET", show_default=False, help="Parquet file that 'mlc costmodel collect' writes.")
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(help="A family of tasks, such as conv or matmul, that is held out as a whole, in place of the tasks drawn for that."),
]
_SHOWN = 12
"""Features of a trained model that are printed."""


class ModelKind(enum.StrEnum):
    """Cost models that learn."""

    GBDT = "gbdt"
    TEXT = "text"


@app.command(
    epilog=examples(
        "mlc costmodel collect kernels.parquet",
        "mlc costmodel collect kernels.parquet --seconds 3600 --tasks 1000   (goes on where it ended)",
        "mlc costmodel collect kernels.parquet --family attention --tasks 100",
        "mlc costmodel collect kernels.parquet --database tuning.db   (measures nothing)",
    )
)
def collect(
    dataset: DataSetPath,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks to sample; a longer list begins with a shorter one.")] = 120,
    configs: Annotated[int, typer.Option(min=2, help="Configs to measure of each task: the default, and a sample.")] = 16,
    seconds: Annotated[float, typer.Option(min=0, help="Time limit; run it again to go on.")] = 300.0,
    seed: Annotated[int, typer.Option(min=0, help="Tasks follow from the seed.")] = 0,
    family: Annotated[
        list[str] | None, typer.Option(help="Only tasks around this, such as attention; may be given several times.", show_default=False)
    ] = None,
    target: TargetOption = "cpu",
    database: Annotated[
        pathlib.Path | None, typer.Option("--database", "-d", help="Take the records of this tuning database instead of measuring.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure configs of sampled tasks on this machine, and keep their times, their loops and facts of their code.

    None of the tasks occurs in the benchmark models. What the file holds is not measured again.
    """
    from .autotune.collecting import adopt
    from .autotune.collecting import collect as run
    from .autotune.database import Database
    from .autotune.describing import Describer
    from .autotune.measure import LocalMeasurer, Protocol
    from .codegen.target import Target
    from .costmodel.sampling import sample_tasks

    families = _families(family or ())
    with Describer() as describer, working("collecting kernels") as tell:
        if database is not None:
            with Database(database, create=False) as opened:
                result = adopt(dataset, opened, describer, tell)
        else:
            here = Target.parse(target)
            with LocalMeasurer(protocol=Protocol(far=math.inf)) as measurer:
                sampled = sample_tasks(tasks, seed, here, here.threads, families)
                result = run(dataset, sampled, measurer, describer, configs=configs, seconds=seconds, tell=tell)
    if json:
        print_json(asdict(result))
    else:
        out.print(
            f"{result.added} kernels added, {result.failed} of them failed; {result.total} in {escape(str(dataset))}", highlight=False
        )


def _families(names: Sequence[str]) -> Sequence[Family]:
    """The families of these names; the usual ones for none."""
    from .costmodel.sampling import USUAL, Family

    try:
        return [Family(name) for name in names] or USUAL
    except ValueError as error:
        raise typer.BadParameter(f"{error}; take one of {', '.join(family.value for family in Family)}", param_hint="--family") from None


@app.command(
    epilog=examples(
        "mlc costmodel train kernels.parquet --model gbdt --output ranker.json",
        "mlc costmodel train kernels.parquet --model text --output text.json --hold-out conv",
        "mlc costmodel train kernels.parquet --model gbdt --output costmodel/pretrained_x86_avx2.json   (the shipped weights)",
    )
)
def train(
    dataset: DataSetPath,
    output: Annotated[pathlib.Path, typer.Option("--output", "-o", help="The model's file.", show_default=False)],
    model: Annotated[ModelKind, typer.Option("--model", "-m", help="Boosted trees over features, or networks over text.")] = ModelKind.GBDT,
    hold_out: HoldOut = None,
    everything: Annotated[bool, typer.Option("--all", help="Learn from the held-out tasks as well; nothing is left to judge by.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a cost model on the tasks of a data set that are not held out."""
    from .autotune.training import train_ranker, train_text
    from .costmodel.dataset import read_dataset

    data = read_dataset(dataset)
    if not everything:
        data = data.for_training(hold_out or ())
    trained: CostModel
    folds: Mapping[str, object] = {}
    with working(f"training on {len(data.kernels)} kernels of {len(data.tasks)} tasks"):
        if model is ModelKind.GBDT:
            ranker, folds = train_ranker(data)
            trained, trusted = ranker, sorted(ranker.trusted)
        else:
            trained, trusted = train_text(data), []
        trained.save(output)
    importance = dict(list(trained.explain().items())[:_SHOWN])
    if json:
        print_json({"kernels": len(data.kernels), "tasks": len(data.tasks), "trusted": trusted, "importance": importance})
        return
    for name, result in folds.items():
        out.print(f"{name}: {result}", highlight=False, markup=False, soft_wrap=True)
    if model is ModelKind.GBDT:
        out.print("may overrule the defaults of: " + (", ".join(trusted) or "none, it is no better"), highlight=False)
    shares = ", ".join(f"{name} {share:.2f}" for name, share in importance.items())
    out.print(f"looks most at: {shares}", highlight=False, markup=False)
    out.print(f"trained on {len(data.kernels)} kernels of {len(data.tasks)} tasks: {output}", highlight=False, markup=False)


@app.command(
    "eval",
    epilog=examples(
        "mlc costmodel eval kernels.parquet --model ranker.json --model text.json",
        "mlc costmodel eval kernels.parquet --model text.json --hold-out conv --json",
    ),
)
def evaluate(
    dataset: DataSetPath,
    models: Annotated[
        list[pathlib.Path] | None, typer.Option("--model", "-m", help="Files of models; the roofline is always there.", show_default=False)
    ] = None,
    hold_out: HoldOut = None,
    json: JsonOption = False,
) -> None:
    """Judge cost models by the tasks of a data set that none of them has seen, over all and by template.

    Pairs are of kernels of one task whose times differ by more than 10%. A regret is how much slower the best of a model's first 1 or 8
    picks is than the best kernel measured. Errors are medians.
    """
    from .costmodel import RooflineModel, load_cost_model
    from .costmodel.comparison import compare, unaccountable, unseen
    from .costmodel.dataset import read_dataset

    judged: dict[str, CostModel] = {"roofline": RooflineModel(), **{str(path): load_cost_model(path) for path in models or ()}}
    for name in unaccountable(judged):
        warning = f"{name} does not say which tasks it was trained on; it may be judged by tasks that it has seen"
        err.print(warning, highlight=False, markup=False, soft_wrap=True)
    with working("judging"):
        comparison = compare(judged, unseen(read_dataset(dataset).held_out(hold_out or ()), judged))
    if json:
        print_json(asdict(comparison))
        return
    out.print(_table(comparison))
    if comparison.agreement is not None:
        share = f"{100 * comparison.agreement:.1f}%"
        out.print(f"one half of the measurements puts {share} of the other half's pairs in order: the rest is noise", highlight=False)


_ERRORS = {"seconds": "time", "vector_instructions": "vectors", "spills": "spills", "code_bytes": "size"}
"""Headings of what is predicted."""


def _table(comparison: Comparison) -> Table:
    grid = Table(box=None, pad_edge=False)
    for heading in ("template", "model"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("tasks", "kernels", "pairs in order", "regret of 1", "regret of 8", *(f"error: {name}" for name in _ERRORS.values())):
        grid.add_column(heading, justify="right", overflow="fold")
    for template in next(iter(comparison.models.values())):
        for name, by_template in comparison.models.items():
            figures = by_template[template]
            shares = (figures.pairwise_accuracy, figures.regret_1, figures.regret_8, *map(figures.errors.get, _ERRORS))
            texts = ("-" if share is None else f"{100 * share:.1f}%" for share in shares)
            grid.add_row(escape(template), escape(pathlib.Path(name).stem), str(figures.tasks), str(figures.kernels), *texts)
    return grid
