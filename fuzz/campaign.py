"""Runs of the fuzzer: cases by seed and number, in a worker process that may crash or hang, and reproducers for what fails."""

from __future__ import annotations

import collections
import enum
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ..codegen.target import Target
from ..codegen.task import Numerics
from ..ir import Graph, print_graph
from ..ir.side_file import save_text
from .graphs import random_graph, random_inputs
from .oracle import Failure, Outcome, Settings, check_graph
from .reducer import reduce_graph
from .torch_programs import TorchProgram, check_program, random_program, reduce_program

CASE_SECONDS = 120.0
"""A case that takes longer is a failure: a program hangs, or compiling does not end."""

_TARGETS = ("cpu", "cpu", "cpu -mcpu=x86-64-v3", "cpu -mcpu=x86-64-v2")


class Kind(enum.Enum):
    """What a case starts from."""

    GRAPH = "graph"
    TORCH = "torch"


@dataclass(frozen=True)
class Case:
    """Everything about a case follows from ``seed`` and ``number``."""

    seed: int
    number: int
    kind: Kind
    settings: Settings
    generator: np.random.Generator = field(repr=False, compare=False)

    def describe(self) -> str:
        return f"seed {self.seed}, case {self.number} ({self.kind.value}): {self.settings}"


@dataclass(frozen=True)
class CaseResult:
    """What came of a case. ``refused`` names what the front end or code generation does not support; ``reproducer`` is a text that shows
    the failure, reduced, and ``graph`` the graph in it, if there is one."""

    seed: int
    number: int
    failure: Failure | None = None
    refused: str | None = None
    undefined: str | None = None
    reproducer: str = ""
    graph: Graph | None = None
    seconds: float = 0.0


@dataclass
class Summary:
    """Counts of a run, and its failures."""

    cases: int = 0
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    undefined: int = 0
    failures: list[CaseResult] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, result: CaseResult) -> None:
        self.cases += 1
        self.undefined += result.undefined is not None
        if result.refused is not None:
            self.refused[result.refused] += 1
        if result.failure is not None:
            self.failures.append(result)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data."""
        return {
            "cases": self.cases,
            "seconds": self.seconds,
            "undefined": self.undefined,
            "refused": dict(self.refused),
            "failures": [
                {"seed": each.seed, "case": each.number, "failure": str(each.failure), "reproducer": each.reproducer}
                for each in self.failures
            ],
        }


def make_case(seed: int, number: int) -> Case:
    """Case ``number`` of ``seed``: graphs and torch programs take turns."""
    generator = np.random.default_rng([seed, number])
    target = Target.parse(_TARGETS[int(generator.integers(len(_TARGETS)))])
    settings = Settings(
        target=target,
        threads=int(generator.integers(1, 4)),
        numerics=Numerics.STRICT if generator.random() < 0.3 else Numerics.FAST,
        config_seed=int(generator.integers(1 << 16)) if generator.random() < 0.5 else None,
    )
    return Case(seed, number, Kind.GRAPH if number % 2 == 0 else Kind.TORCH, settings, generator)


def run_case(case: Case, *, reduce_seconds: float = 30.0) -> CaseResult:
    """Runs a case; a failure is reduced for at most ``reduce_seconds`` (0: not at all)."""
    begin = time.monotonic()
    run = _run_graph if case.kind is Kind.GRAPH else _run_program
    result = run(case, reduce_seconds)
    return CaseResult(
        case.seed,
        case.number,
        result.failure,
        result.refused,
        result.undefined,
        result.reproducer,
        result.graph,
        time.monotonic() - begin,
    )


def _run_graph(case: Case, reduce_seconds: float) -> CaseResult:
    graph = random_graph(case.generator)
    inputs = random_inputs(graph, case.generator)
    try:
        outcome = check_graph(graph, inputs, case.settings)
    except Exception as error:
        return CaseResult(case.seed, case.number, undefined=f"{type(error).__name__}: {error}")
    return _judged(case, outcome, graph, inputs, reduce_seconds)


def _run_program(case: Case, reduce_seconds: float) -> CaseResult:
    program = random_program(case.generator)
    outcome, imported = check_program(program, case.settings)
    if outcome.failure is None or outcome.failure.stage != "import" or imported is not None:
        graph, inputs = imported if imported is not None else (None, [])
        return _judged(case, outcome, graph, inputs, reduce_seconds, program)
    if reduce_seconds:
        program = reduce_program(program, outcome.failure, case.settings)
        outcome = check_program(program, case.settings)[0]
    return _judged(case, outcome, None, [], 0.0, program)


def _judged(
    case: Case, outcome: Outcome, graph: Graph | None, inputs: list[np.ndarray], reduce_seconds: float, program: TorchProgram | None = None
) -> CaseResult:
    failure = outcome.failure
    if failure is None:
        return CaseResult(case.seed, case.number, refused=outcome.refused)
    lines = [f"# {case.describe()}", *(f"# {line}" for line in str(failure).splitlines())]
    if graph is not None:
        if reduce_seconds:
            reduced = reduce_graph(graph, inputs, failure, case.settings, seconds=reduce_seconds)
            graph, failure = reduced.graph, reduced.failure
            lines += [f"# reduced in {reduced.steps} steps: {line}" for line in str(failure).splitlines()[:1]]
            lines += [f"# %{value.name} = {_short(array)}" for value, array in zip(graph.inputs, reduced.inputs, strict=True)]
        lines.append(print_graph(graph))
    if program is not None:
        lines.append(program.source())
    return CaseResult(case.seed, case.number, failure, reproducer="\n".join(lines), graph=graph)


def _short(array: np.ndarray) -> str:
    return np.array2string(array, threshold=24, max_line_width=10_000).replace("\n", "")


@dataclass(frozen=True)
class Campaign:
    """Cases 0, 1, 2, ... of ``seed`` from ``start`` on, until ``count`` are done or ``seconds`` have passed (None: no limit).

    Which cases there are depends on ``seed`` and ``start`` alone. Reproducers go to ``folder``: the reduced graph as IR text with the
    settings (and for torch programs their source), and for graphs of large constants a side file.
    """

    seed: int = 0
    start: int = 0
    count: int | None = None
    seconds: float | None = None
    folder: Path | None = None
    reduce_seconds: float = 30.0

    def run(self, progress: Callable[[CaseResult], None] | None = None) -> Summary:
        """Runs the cases in a worker process, which is replaced when it crashes or a case hangs."""
        begin = time.monotonic()
        summary = Summary()
        worker = Worker(self.seed, self.reduce_seconds)
        number = self.start
        try:
            while (self.count is None or number < self.start + self.count) and not self._over(begin):
                result = worker.run(number)
                number += 1
                summary.add(result)
                if result.failure is not None:
                    self.write(result)
                if progress is not None:
                    progress(result)
        except KeyboardInterrupt:
            pass
        finally:
            worker.stop()
        summary.seconds = time.monotonic() - begin
        return summary

    def _over(self, begin: float) -> bool:
        return self.seconds is not None and time.monotonic() - begin >= self.seconds

    def write(self, result: CaseResult) -> None:
        """Writes the reproducer of a failure, if there is a folder for it."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"seed{result.seed}-case{result.number}"
        (self.folder / f"{stem}.txt").write_text(result.reproducer or f"# {result.failure}\n")
        if result.graph is not None:
            save_text(result.graph, self.folder / f"{stem}.ir")


Serve = Callable[[Connection, int, float], None]
"""What the worker process runs: (pipe, seed, seconds to reduce)."""


class Worker:
    """A process that runs cases, started anew after a crash."""

    def __init__(self, seed: int, reduce_seconds: float, serve: Serve | None = None) -> None:
        self._serve = serve or _serve
        self._seed = seed
        self._reduce_seconds = reduce_seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(self, number: int) -> CaseResult:
        """The result of a case; a crash and a case without end are failures."""
        if self._process is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(number)
            if self._pipe.poll(CASE_SECONDS + self._reduce_seconds):
                failure, refused, undefined, reproducer, graph, seconds = self._pipe.recv()
                parsed = _parse(graph)
                return CaseResult(
                    self._seed, number, Failure(*failure) if failure else None, refused, undefined, reproducer, parsed, seconds
                )
            message = f"no result after {CASE_SECONDS + self._reduce_seconds:.0f} s"
            kind = "hang"
        except (EOFError, ConnectionError):
            self._process.join(5)
            message, kind = f"the process ended with code {self._process.exitcode}", "crash"
        self.stop()
        text = f"# {make_case(self._seed, number).describe()}\n# {message}\n"
        return CaseResult(self._seed, number, Failure("process", kind, message), reproducer=text)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=self._serve, args=(other, self._seed, self._reduce_seconds), daemon=True)
        self._process.start()
        other.close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def _serve(pipe: Connection, seed: int, reduce_seconds: float) -> None:
    """Runs cases by number until the pipe closes."""
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        result = run_case(make_case(seed, number), reduce_seconds=reduce_seconds)
        failure = (result.failure.stage, result.failure.kind, result.failure.message) if result.failure else None
        graph = print_graph(result.graph) if result.graph is not None else None
        pipe.send((failure, result.refused, result.undefined, result.reproducer, graph, result.seconds))


def _parse(text: str | None) -> Graph | None:
    """The graph of a reproducer; None when large constants, which its text leaves out, keep it in the worker."""
    from ..errors import Error
    from ..ir import parse

    try:
        return parse(text) if text is not None else None
    except Error:
        return None
