"""mlc tune: several models in one job, what is shown meanwhile, and how Ctrl-C ends it."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pathlib
import signal
import subprocess
import sys

import pytest
from command_line import CommandLine
from rich.console import Console

from mlc.autotune.database import Database
from mlc.autotune.tuning import Progress, TaskResult, TuningResult
from mlc.codegen.record import Record
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.ir import DType, GraphBuilder, TensorType
from mlc.tuning_display import Display, batch_line, summary, watching
from mlc.tuning_report import tuning_table

TINY = "mlc.benchmarks.models:mlp_tiny"
INTERRUPTIBLE = """
import signal, sys
from mlc import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
cli.main(sys.argv[1:])
"""


def test_models_of_one_job_share_their_tasks(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    path, best = tmp_path / "tuning.db", tmp_path / "best.jsonl"
    with Database(path) as database:
        database.add([Record("of another model", "cpu", CONFIG, (1e-6,), "v", 0.0)])
    done = mlc("tune", TINY, TINY, "-n", "3", "--time", "60", "-d", str(path), "--export", str(best), "--json")
    assert done.code == 0, done.err
    tasks = done.json["tasks"]
    assert [task["occurrences"] for task in tasks] == [2] * len(tasks)
    assert len(tasks) <= done.json["trials"] == sum(task["trials"] for task in tasks) <= 3 * len(tasks)
    with Database(path) as database:
        assert {record.task for record in database} == {"of another model"} | {task["task"] for task in tasks}
    *batches, compared = [line for line in done.err.splitlines() if " trials, " in line]
    assert len(batches) >= len(tasks) and "comparing the best configs in the models" in compared
    assert batches[-1].startswith(("linear", "relu")) and f"{done.json['trials']} of {3 * len(tasks)} trials, 0 failed" in batches[-1]
    # The file with the winners of this job is as good as the database.
    shipped = {fields["task"]: fields["config"] for fields in map(json.loads, best.read_text().splitlines())}
    assert shipped == {task["task"]: task["best"] for task in tasks}
    compiled = mlc("compile", TINY, "-o", str(tmp_path / "tiny.mlc"), "--database", str(best), "--json")
    (program,) = compiled.json["report"]["programs"]
    assert {kernel["task"]: kernel["config"] for kernel in program["kernels"]} == shipped


def test_ctrl_c_keeps_what_was_measured_and_the_same_command_goes_on(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "tuning.db"
    arguments = ("tune", TINY, "--trials", "3", "--database", str(path))
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    seen: list[str] = []
    for line in process.stderr:
        seen.append(line)
        if " trials, " in line:
            break
    process.send_signal(signal.SIGINT)
    output, rest = process.communicate(timeout=60)
    assert process.returncode == 130, "".join(seen) + rest
    assert rest.splitlines()[-1] == f"stopped: every measurement so far is kept in {path}; the same command goes on from there"
    assert "Traceback" not in rest and "interrupted after" in output
    with Database(path) as database:
        kept = len({(record.task, record.config) for record in database})
    assert kept >= 2
    again = mlc(*arguments, "--json")
    assert again.code == 0
    assert again.json["trials"] <= 3 * len(again.json["tasks"]) - kept


def test_ctrl_c_before_the_first_measurement_says_so(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    model = tmp_path / "interrupted_model.py"
    model.write_text("def make():\n    raise KeyboardInterrupt\n")
    done = mlc("tune", f"{model}:make", "--database", str(tmp_path / "tuning.db"))
    assert (done.code, done.out) == (130, "")
    assert done.err == "stopped before anything was measured; the same command starts again\n"


def task(size: int) -> Task:
    builder = GraphBuilder()
    x = builder.input(TensorType(DType.FLOAT32, (size,)))
    graph = builder.finish([builder.call("exp", builder.call("neg", x))])
    return Task(graph, frozenset(), Target.parse("cpu -mcpu=x86-64-v3 -threads=1"), 1)


CONFIG = Config.of("elementwise", {"lanes": 8})
TASKS = (
    TaskResult(task(1000), 3, CONFIG, 4e-5, CONFIG, 2e-5, 8, 1e-5),
    TaskResult(task(2000), 1, CONFIG, 5e-5, CONFIG, 4e-5, 4, 1e-5),
    TaskResult(task(3000), 1, CONFIG, math.inf, None, math.inf, 0, 1e-5),
)
STATE = Progress(
    task=TASKS[0].task,
    records=(),
    best_seconds=2e-5,
    trials=12,
    trials_budget=30,
    elapsed=10.0,
    seconds_budget=60.0,
    end_to_end=math.inf,
    failed=2,
    tasks=TASKS,
)


def test_a_batch_is_one_line() -> None:
    assert batch_line(STATE) == "neg+exp 1000 -> 1000: 40.0 -> 20.0 us, 50% of the bound; 12 of 30 trials, 2 failed; 10 s, 50 s left"
    complete = dataclasses.replace(STATE, tasks=TASKS[:2], end_to_end=1e-4, seconds_budget=None)
    assert summary(complete) == "end to end 170.0 -> 100.0 us; 12 of 30 trials, 2 failed; 10 s"


@pytest.mark.parametrize(("height", "shown"), [(40, (1000, 2000, 3000)), (8, (1000, 2000))])
def test_a_terminal_shows_the_tasks_that_take_most_time(height: int, shown: tuple[int, ...]) -> None:
    times = iter([100.0, 107.0])
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100, height=height)
    display = Display(console, "tiny", clock=lambda: next(times))
    with console.capture() as capture:
        console.print(display)
    assert "tuning tiny" in capture.get()
    display.tell(STATE)
    with console.capture() as capture:
        console.print(display)
    lines = capture.get().splitlines()
    rows = {size: next((line.split() for line in lines if f"neg+exp {size}" in line), None) for size in (1000, 2000, 3000)}
    assert rows[1000] == ["neg+exp", "1000", "->", "1000", "3", "40.0", "20.0", "50%", "8"]
    assert rows[2000] == ["neg+exp", "2000", "->", "2000", "1", "50.0", "40.0", "25%", "4"]
    assert rows[3000] == (["neg+exp", "3000", "->", "3000", "1", "-", "-", "0%", "0"] if 3000 in shown else None)
    assert any("and 1 that take less" in line for line in lines) == (3000 not in shown)
    assert lines[-1] == "12 of 30 trials, 2 failed; 17 s, 43 s left"  # the clock went on


@pytest.mark.parametrize("loose", [0, 2])
def test_speed_ups_that_load_may_have_made_are_marked_as_such(loose: int) -> None:
    tasks = tuple(dataclasses.replace(each, compared=place >= loose) for place, each in enumerate(TASKS))
    stream = io.StringIO()
    Console(file=stream, width=200).print(tuning_table(TuningResult(tasks, 12, 2, 10.0, interrupted=False)))
    text = stream.getvalue()
    assert "a call's kernels took 170.0 us by default, take 100.0 us now (1.70x)" in text
    assert ("2 kernels were not compared with their defaults side by side" in text) == (loose == 2)


def test_a_file_gets_plain_lines_only() -> None:
    stream = io.StringIO()
    with watching(Console(file=stream, width=40), "tiny") as tell:
        tell(STATE)
        tell(STATE)
    assert stream.getvalue() == f"{batch_line(STATE)}\n" * 2
