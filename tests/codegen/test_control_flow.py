"""Control flow in native programs: branches, loops, their memory, profiles and artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from programs import assembled

from mlc import load
from mlc.ir import Graph, interpret, parse
from mlc.ir.program import CountedLoop, walk
from mlc.runtime import Executable, Model

BODY = """graph @body(%s: f32[{n}], %u: f32[{n}], %x: f32[{n}], %k: f32[{n}]) {{
      %m = mul(%s, %k) : f32[{n}]
      %t = add(%m, %x) : f32[{n}]
      return %t, %u, %m, %t
    }}"""


def loop(n: int, trips: int, reverse: bool = False) -> Graph:
    """A recurrence with a carried value that changes and one that does not, a sequence, an invariant and two stacked results."""
    return parse(
        f"""graph @main(%s: f32[{n}], %u: f32[{n}], %x: f32[{trips},{n}], %k: f32[{n}]) {{
  %t, %v, %y, %z = loop(%s, %u, %x, %k) {{trips = {trips}, carried = 2, sliced = 1, reverse = {str(reverse).lower()}}}
      : f32[{n}], f32[{n}], f32[{trips},{n}], f32[{trips},{n}] {{
    {BODY.format(n=n)}
  }}
  return %t, %v, %y, %z
}}"""
    )


def check(graph: Graph, inputs: list[np.ndarray]) -> Executable:
    """The program of ``graph``, after comparing it with the interpreter."""
    program = assembled(graph)
    executable = Executable(program.program, program.library, program.weights)
    for got, want in zip(executable(*inputs), interpret(graph, inputs, wide=True), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return executable


def arrays(graph: Graph) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.uniform(-1, 1, value.tensor.static_shape).astype(value.tensor.dtype.numpy) for value in graph.inputs]


@pytest.mark.parametrize(("n", "trips", "reverse"), [(16, 3, False), (16, 4, True), (5, 3, True), (5, 2, False), (16, 0, False)])
def test_loops(n: int, trips: int, reverse: bool) -> None:
    graph = loop(n, trips, reverse)
    check(graph, arrays(graph))


def test_aligned_elements_of_sequences_are_not_copied() -> None:
    graph = loop(16, 3)
    (step,) = [step for step in walk(check(graph, arrays(graph)).program.steps) if isinstance(step, CountedLoop)]
    assert len(step.body) == 3, "two kernels, and a copy of the result that is both carried and stacked"


COND = """graph @main(%p: b1[], %x: f32[4], %y: f32[4]) {
  %a, %b = cond(%p, %x, %y) : f32[4], f32[4] {
    graph @then(%x: f32[4], %y: f32[4]) {
      %s = add(%x, %y) : f32[4]
      return %s, %s
    }
  } {
    graph @else(%x: f32[4], %y: f32[4]) {
      %e = exp(%x) : f32[4]
      %m = mul(%e, %y) : f32[4]
      return %y, %m
    }
  }
  %d = sub(%a, %x) : f32[4]
  return %d, %b
}"""


@pytest.mark.parametrize("predicate", [True, False])
def test_branches(predicate: bool) -> None:
    graph = parse(COND)
    check(graph, [np.array(predicate), *arrays(graph)[1:]])


WHILE = """graph @main(%i: i64[], %a: f32[3], %b: f32[3], %k: f32[3]) {
  %j, %c, %d, %l = while(%i, %a, %b, %k) : i64[], f32[3], f32[3], f32[3] {
    graph @condition(%i: i64[], %a: f32[3], %b: f32[3], %k: f32[3]) {
      %zero = full() {shape = [], value = 0, dtype = i64} : i64[]
      %p = gt(%i, %zero) : b1[]
      return %p
    }
  } {
    graph @body(%i: i64[], %a: f32[3], %b: f32[3], %k: f32[3]) {
      %one = full() {shape = [], value = 1, dtype = i64} : i64[]
      %j = sub(%i, %one) : i64[]
      %s = add(%a, %k) : f32[3]
      %t, %y = loop(%b, %s) {trips = 2, carried = 1} : f32[3], f32[2,3] {
        graph @inner(%t: f32[3], %s: f32[3]) {
          %u = mul(%t, %s) : f32[3]
          return %u, %t
        }
      }
      %w = slice(%y) {axis = 0, start = 1, stop = 2, step = 1} : f32[1,3]
      %v = reshape(%w) {shape = [3]} : f32[3]
      %z = add(%v, %t) : f32[3]
      return %j, %b, %z, %k
    }
  }
  return %j, %c, %d, %l
}"""


@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_loops_inside_loops_that_count_at_run_time(rounds: int) -> None:
    graph = parse(WHILE)
    check(graph, [np.array(rounds), *arrays(graph)[1:]])


def test_profiles_sum_over_the_rounds() -> None:
    graph = loop(16, 3)
    executable = check(graph, arrays(graph))
    report = executable.profile(calls=2)
    assert [kernel.runs for kernel in report.kernels] == [3, 3]
    assert report.kernels[0].flops == 3 * 16
    assert all(kernel.seconds for kernel in report.kernels)
    assert "3 x mul" in str(report)


def test_artifacts_keep_the_steps(tmp_path: Path) -> None:
    graph = parse(WHILE)
    inputs = [np.array(2), *arrays(graph)[1:]]
    executable = check(graph, inputs)
    Model([executable], "loops").save(tmp_path / "loops.mlc")
    loaded = load(tmp_path / "loops.mlc")
    for got, want in zip(loaded(*inputs), executable(*inputs), strict=True):
        np.testing.assert_array_equal(got, want)
