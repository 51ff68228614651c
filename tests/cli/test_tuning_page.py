"""mlc report --html: a page that needs nothing else, whose figures are the database's."""

from __future__ import annotations

import html.parser
import json
import pathlib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

import pytest
from command_line import CommandLine

from mlc.autotune.database import Database
from mlc.autotune.tuning import template_space
from mlc.codegen.record import Record
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.costmodel import RooflineModel
from mlc.ir import DType, GraphBuilder, TensorType, canonicalise
from mlc.tuning_history import calibrate, history, read_histories
from mlc.tuning_page import SHOWN, Tuning, page

TINY = "mlc.benchmarks.models:mlp_tiny"
CHARTS = {
    "best time of all calls over trials",
    "best time of each kernel over trials",
    "roofline of the kernels before and after",
    "time of all calls of each kernel",
    "predictions of the shipped cost model beside measurements",
    "predictions of the roofline beside measurements",
}


@dataclass
class Page(html.parser.HTMLParser):
    """What a reader of a page finds in it."""

    text: str
    charts: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    _cell: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        ElementTree.fromstring(self.text.removeprefix("<!DOCTYPE html>\n"))  # well-formed
        self.feed(self.text)
        self.outside += [word for word in ("@import", "url(", "<script", "<link") if word in self.text]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.outside += [str(value) for name, value in attrs if name != "xmlns" and ("//" in (value or "") or name in ("src", "href"))]
        if tag == "svg":
            self.charts.append(given["aria-label"] or "")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._cell = tag in ("td", "th", "code") and bool(self.tables)

    def handle_endtag(self, tag: str) -> None:
        self._cell = False

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell:
            self.tables[-1][-1][-1] += data

    def column(self, table: int, heading: str) -> list[str]:
        headings, *rows = self.tables[table]
        return [row[headings.index(heading)] for row in rows]


def linear_task(columns: int, depth: int = 64) -> Task:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (64, depth)))
    weight = builder.input(TensorType(DType.FLOAT32, (columns, depth)))
    graph = canonicalise(builder.finish([builder.call("linear", x, weight)]))
    return Task(graph, frozenset({1}), Target.parse("cpu -mcpu=x86-64-v4 -threads=2"), 2)


def measurements(task: Task, *seconds: float, every: float = 1.0) -> list[Record]:
    """One of each of the first configs of the task's space, the default first, ``every`` so many seconds; a time of 0 is a failure."""
    space = template_space(task)
    assert space is not None
    return [
        Record(task.key, str(task.target), config, (time,) if time else (), "v", 1e9 + every * place, "" if time else "crashed")
        for place, (config, time) in enumerate(zip(space.configs, seconds, strict=False))
    ]


ONE, OTHER = linear_task(64), linear_task(512)


@pytest.fixture
def tuned(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "tuning.db"
    with Database(path) as database:
        database.add(measurements(ONE, 4e-5, 0.0, 2e-5, 3e-5), [ONE])
        database.add(measurements(OTHER, 8e-5, 9e-5, 7e-5, 5e-5, every=1e-3), [OTHER])
    return path


def test_a_page_on_everything_in_a_database(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tuning.html"
    done = mlc("report", "--database", str(tuned), "--html", str(file))
    assert done.code == 0, done.err
    assert done.out == f"{file}: 2 kernels, 8 configs measured, 1 measurements failed; 120.0 -> 70.0 us (1.71x)\n"
    read = Page(file.read_text())
    assert set(read.charts) == CHARTS and not read.outside
    search, roofline, shares, models, by_kernel = range(5)
    assert [cell.split()[0] for cell in read.column(search, "kernel")] == ["1", "2"]
    assert read.column(search, "before, us") == ["80.0", "40.0"] and read.column(search, "best, us") == ["50.0", "20.0"]
    assert read.column(search, "configs") == ["4", "4"] and read.column(search, "failed") == ["0", "1"]
    assert read.column(search, "found at") == ["4", "3"] and read.column(search, "speed-up") == ["1.60x", "~2.00x"]
    assert "Of 1 kernels, marked ~, default and best were measured at different times" in "".join(read.words)
    with Database(tuned) as database:
        best = [database.best(task.key, str(task.target)) for task in (OTHER, ONE)]
    assert read.column(search, "config") == [str(record.config) for record in best if record is not None]
    assert read.column(roofline, "MFLOP") == [f"{2 * 64 * 64 * columns / 1e6:.4g}" for columns in (512, 64)]
    assert read.column(roofline, "GFLOP/s best") == [f"{2 * 64 * 64 * 512 / 50e-6 / 1e9:.4g}", f"{2 * 64 * 64 * 64 / 20e-6 / 1e9:.4g}"]
    assert read.column(shares, "share") == ["66.7%", "33.3%"] and read.column(shares, "share now") == ["71.4%", "28.6%"]
    assert read.column(models, "configs") == ["7", "7"] and read.column(by_kernel, "configs") == ["4", "3"]
    assert "from 2001-09-09 01:46 UTC" in "".join(read.words)


def test_predictions_on_the_page_are_the_models(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tuning.html"
    found = mlc("report", "--database", str(tuned), "--html", str(file), "--json").json
    with Database(tuned) as database:
        expected = calibrate("roofline", lambda task: RooflineModel(), read_histories(database))
    assert found["calibration"][1]["pairwise_accuracy"] == pytest.approx(expected.pairwise_accuracy)
    assert found["calibration"][1]["typical_factor"] == pytest.approx(expected.typical_factor)
    assert f"{expected.pairwise_accuracy:.2f}" == Page(file.read_text()).column(3, "pairs")[1]


def test_a_tuned_model_and_its_page(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    path, file, artifact = tmp_path / "tuning.db", tmp_path / "tuning.html", tmp_path / "tiny.mlc"
    tuned = mlc("tune", TINY, "-n", "4", "--database", str(path), "--json").json
    with Database(path) as database:
        database.add(measurements(ONE, 1.0), [ONE])  # of another model: no part of this one's page
        done = mlc("report", TINY, "--database", str(path), "--html", str(file), "--json")
        assert done.code == 0, done.err
        assert done.json["unmeasured"] == 0 and len(done.json["tasks"]) == len(database.tasks()) - 1
        for task in done.json["tasks"]:
            best = database.best(task["task"], task["target"])
            assert best is not None and (task["best_seconds"], task["best"]) == (best.median, str(best.config))
        assert {task["task"]: task["trials"] for task in done.json["tasks"]} == {task["task"]: task["trials"] for task in tuned["tasks"]}
    read = Page(file.read_text())
    assert set(read.charts) == CHARTS and not read.outside
    assert sorted(read.column(0, "best, us")) == sorted(f"{task['best_seconds'] * 1e6:.2f}" for task in done.json["tasks"])
    assert read.column(0, "configs") == [str(task["trials"]) for task in done.json["tasks"]]
    # The artifact of the same model tells the same.
    assert mlc("compile", TINY, "-o", str(artifact)).code == 0
    of_artifact = mlc("report", str(artifact), "--database", str(path), "--html", str(file), "--json").json
    assert {**of_artifact, "title": ""} == {**done.json, "title": ""}


def test_a_model_without_measurements_has_a_page_that_says_so(mlc: CommandLine, tuned: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "tuning.html"
    done = mlc("report", TINY, "--database", str(tuned), "--html", str(file))
    assert done.code == 0 and "0 kernels" in done.out and "no times" in done.out
    assert "2 kernels of the model have no measurements" in "".join(Page(file.read_text()).words)


def test_a_task_of_which_nothing_works_has_a_row_and_no_bar() -> None:
    broken = history(ONE, 1, measurements(ONE, 0.0, 0.0), template_space(ONE))
    slow = history(OTHER, 2, measurements(OTHER, 0.0, 1e-5), template_space(OTHER))  # its default fails
    read = Page(page(Tuning("a <model> & more", "x.db", (slow, broken), (calibrate("roofline", lambda task: RooflineModel(), [slow]),))))
    assert read.column(0, "config")[1] == "none works" and read.column(0, "before, us") == ["-", "-"]
    assert read.tables[2][1:] == [] and "time of all calls of each kernel" not in read.charts
    assert "Tuning of a <model> & more" in "".join(read.words)


def test_a_page_stays_small_and_names_what_it_leaves_out() -> None:
    tasks = [linear_task(16 * number) for number in range(1, 31)]
    histories = [history(task, 1, measurements(task, *(1e-5 + 1e-7 * trial for trial in range(100, 0, -1))), None) for task in tasks]
    many = tuple(histories[place % len(histories)] for place in range(SHOWN + 20))
    calibration = calibrate("roofline", lambda task: RooflineModel(), many)
    text = page(Tuning("much", "x.db", many, (calibration, calibration)))
    assert len(text.encode()) < 1_000_000
    read = Page(text)
    assert len(read.tables[0]) == SHOWN + 1
    assert f"the {SHOWN} kernels that take most time" in "".join(read.words)


def test_a_page_needs_a_database(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    assert "--html needs --database FILE" in mlc("report", TINY, "--html", "page.html").err
    assert "name a MODEL to report on" in mlc("report").err
    missing = mlc("report", "--html", str(tmp_path / "page.html"), "--database", str(tmp_path / "no.db"))
    assert missing.code == 1 and "there is no tuning database" in missing.err
    assert not (tmp_path / "page.html").exists()
    assert json.loads(mlc("report", TINY, "--json").out)["programs"]
