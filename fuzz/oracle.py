"""Takes a graph through the compiler and compares every stage with the interpretation of the graph as it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..codegen.assembly import Assembled, assemble
from ..codegen.space import Config, Space
from ..codegen.target import Target
from ..codegen.task import Numerics, Task
from ..codegen.template import Template
from ..costmodel import CostOracle
from ..errors import Error, LoweringError
from ..ir import Graph, Value, interpret, parse, print_graph, verify
from ..ir.program import Signature, TensorSpec
from ..passes import Context, Pipeline, default_pipeline
from ..passes.base import Pass
from ..runtime.executable import Executable
from .reference import Reference, reference_of

Run = Callable[[Graph, Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Runs a fused graph natively."""


@dataclass(frozen=True)
class Settings:
    """How a graph is compiled. ``config_seed`` None takes each kernel's default config, a number random ones.

    ``pipeline`` None is the default; ``native`` None compiles and runs, anything else runs the fused graph instead.
    """

    target: Target
    threads: int = 1
    numerics: Numerics = Numerics.FAST
    config_seed: int | None = None
    pipeline: Pipeline | None = None
    native: Run | None = None

    def __str__(self) -> str:
        configs = "default configs" if self.config_seed is None else f"random configs (seed {self.config_seed})"
        return f"target '{self.target}', {self.threads} threads, nonfinite={self.numerics.value}, {configs}"


@dataclass(frozen=True)
class Failure:
    """Where a graph went wrong: ``stage`` is ``text form``, ``pass <number> '<pass>'``, ``code generation``, ``native`` or, for torch
    programs, ``import``; ``kind`` tells exceptions (their type) from wrong results."""

    stage: str
    kind: str
    message: str

    def alike(self, other: Failure | None) -> bool:
        """Whether ``other`` may be the same fault, on a smaller input: the same pass by name, the same kind."""
        return other is not None and _stage_name(self.stage) == _stage_name(other.stage) and self.kind == other.kind

    def __str__(self) -> str:
        return f"{self.stage}: {self.kind}: {self.message}"


def _stage_name(stage: str) -> str:
    return stage.partition("'")[2] or stage


@dataclass(frozen=True)
class Outcome:
    """What checking a graph gave: a failure, or the operations that code generation refuses (with a LoweringError), or neither."""

    failure: Failure | None = None
    refused: str | None = None


@dataclass
class _Watch:
    """The checks after each stage."""

    reference: Reference
    inputs: Sequence[np.ndarray]
    stages: list[str] = field(default_factory=list)

    def graph(self, stage: str, graph: Graph) -> Failure | None:
        """Whether ``graph`` is valid and computes what the original does."""
        try:
            verify(graph)
            results = interpret(graph, self.inputs, wide=True)
        except Exception as error:
            return _raised(stage, error)
        problem = self.reference.problem(results, "the graph")
        return Failure(stage, "wrong", problem) if problem is not None else None


def check_graph(graph: Graph, inputs: Sequence[np.ndarray], settings: Settings, reference: Reference | None = None) -> Outcome:
    """Checks text form, every pass, and native code. The failure is the first one. Where infinities or NaN arise, numerics are strict.

    Raises what the interpreter does where the graph itself is undefined on these inputs.
    """
    watch = _Watch(reference or reference_of(graph, inputs), inputs)
    if not watch.reference.finite:
        settings = replace(settings, numerics=Numerics.STRICT)
    if (failure := _text_form(graph)) is not None:
        return Outcome(failure)
    pipeline = settings.pipeline or default_pipeline(settings.target)
    context = Context(
        target=settings.target,
        threads=settings.threads,
        numerics=settings.numerics,
        cost=CostOracle(settings.target, settings.threads, numerics=settings.numerics),
        evaluator=interpret,
    )
    for position, step in enumerate(pipeline.passes):
        stage = f"pass {position} '{step}'"
        result, failure = _applied(stage, step, graph, context)
        if failure is None and result is not graph and result is not None:
            failure = watch.graph(stage, result)
        if failure is not None or result is None:
            return Outcome(failure)
        graph = result
    try:
        results = (settings.native or (lambda fused, given: run_native(fused, given, settings)))(graph, inputs)
    except LoweringError as error:
        return Outcome(refused=str(error).strip().splitlines()[-1].strip())
    except Exception as error:
        return Outcome(_raised("code generation", error))
    problem = watch.reference.problem(results, "native code")
    return Outcome(Failure("native", "wrong", problem) if problem is not None else None)


def _applied(stage: str, step: Pass, graph: Graph, context: Context) -> tuple[Graph | None, Failure | None]:
    try:
        return step.apply(graph, context), None
    except Exception as error:
        return None, _raised(stage, error)


def _text_form(graph: Graph) -> Failure | None:
    text = print_graph(graph)
    if "#" in text:  # elided constants live in a side file
        return None
    try:
        again = print_graph(parse(text))
    except Error as error:
        return _raised("text form", error)
    return None if again == text else Failure("text form", "wrong", f"the text changes when it is read and printed again:\n{again}")


def _raised(stage: str, error: Exception) -> Failure:
    return Failure(stage, type(error).__name__, str(error))


def run_native(graph: Graph, inputs: Sequence[np.ndarray], settings: Settings) -> Sequence[np.ndarray]:
    """The outputs of the program of a fused graph, twice: the second call finds an arena that was used before."""
    assembled = assembled_program(graph, settings)
    executable = Executable(assembled.program, assembled.library, assembled.weights, threads=settings.threads)
    copies = [np.array(array) for array in inputs]
    first = _listed(executable(*copies), graph)
    second = _listed(executable(*copies), graph)
    for before, after in zip(inputs, copies, strict=True):
        if not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            raise AssertionError("the program changed its inputs")
    for one, two in zip(first, second, strict=True):
        if one.tobytes() != two.tobytes():
            raise AssertionError("two calls with the same inputs gave different results")
    return second


def assembled_program(graph: Graph, settings: Settings) -> Assembled:
    """The program of a fused graph."""

    def spec(value: Value) -> TensorSpec:
        return TensorSpec(value.name, value.tensor.dtype.text, value.tensor.static_shape)

    generator = np.random.default_rng(settings.config_seed)

    def choose(task: Task, template: Template, space: Space) -> Config:
        if settings.config_seed is None:
            return space.default
        return space.configs[int(generator.integers(len(space.configs)))]

    signature = Signature(tuple(map(spec, graph.inputs)), tuple(map(spec, graph.outputs)))
    return assemble(graph, settings.target, signature, choose, threads=settings.threads, numerics=settings.numerics)


def _listed(result: object, graph: Graph) -> list[np.ndarray]:
    arrays = list(result) if isinstance(result, tuple | list) else [result]
    return [np.asarray(array) for array in arrays] if len(graph.outputs) else []
