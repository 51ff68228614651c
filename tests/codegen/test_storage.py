"""Programs that change states and arguments: right whatever reads the old content, and without copies where nothing does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mlc import LoweringError
from mlc.codegen.assembly import assemble
from mlc.codegen.target import Target
from mlc.ir import ArrayConstant, Graph, interpret, parse
from mlc.ir.program import Copy, Program, Signature, Space, TensorSpec
from mlc.runtime import Executable

HOST = Target.parse("cpu")

PUT = "{axes = [0]} : f32[6,4]"
HEAD = """graph @main(%x: f32[1,4], %i: i64[1], %s: token(f32[6,4]), %t: token(f32[6,4])) {
  %a, %s1 = state_read(%s) : f32[6,4], token(f32[6,4])
  %b, %t1 = state_read(%t) : f32[6,4], token(f32[6,4])
"""
CASES: dict[str, tuple[str, int]] = {
    # text, copies needed
    "updated and read": (f"%n = put(%a, %x, %i) {PUT}\n%y = mul(%n, %b) : f32[6,4]", 0),
    "updated twice": (f"%m = put(%a, %x, %i) {PUT}\n%n = put(%m, %x, %i) {PUT}\n%y = neg(%n) : f32[6,4]", 0),
    "old content read afterwards": (f"%n = put(%a, %x, %i) {PUT}\n%m = neg(%n) : f32[6,4]\n%y = mul(%m, %a) : f32[6,4]", 2),
    "old content returned": (f"%n = put(%a, %x, %i) {PUT}\n%y = relayout(%a) : f32[6,4]", 3),
    "new content returned": (f"%n = put(%a, %x, %i) {PUT}\n%y = relayout(%n) : f32[6,4]", 1),
    "an intermediate one returned": (f"%y = put(%a, %x, %i) {PUT}\n%n = put(%y, %x, %i) {PUT}", 1),
    "another tensor updated": (f"%n = put(%b, %x, %i) {PUT}\n%y = neg(%a) : f32[6,4]", 2),
    "replaced by what is computed": ("%n = add(%b, %x) : f32[6,4]\n%y = neg(%n) : f32[6,4]", 0),
    "replaced by what it becomes": ("%n = add(%a, %x) : f32[6,4]\n%y = neg(%n) : f32[6,4]", 1),
    "replaced by the other state": ("%n = relayout(%b) : f32[6,4]\n%y = neg(%a) : f32[6,4]", 2),
    "replaced by a constant": ("%n = full() {shape = [6, 4], value = 2.0, dtype = f32} : f32[6,4]\n%y = neg(%a) : f32[6,4]", 1),
}


def program(text: str, swap: bool = False) -> tuple[Graph, Executable]:
    other = "%a" if swap else "%b"
    tail = f"\n%u = state_write(%s1, %n) : token(f32[6,4])\n%v = state_write(%t1, {other}) : token(f32[6,4])\nreturn %y, %u, %v\n}}"
    graph = parse(HEAD + text + tail)
    inputs = [TensorSpec(value.name, value.type.dtype.text, value.type.static_shape) for value in graph.inputs[:2]]  # type: ignore[union-attr]
    signature = Signature(tuple(inputs), (TensorSpec("y", "f32", (6, 4)),))
    states = [(name, ArrayConstant(first)) for name, first in zip("st", _states(), strict=True)]
    done = assemble(graph, HOST, signature, lambda task, template, space: space.default, threads=1, states=states)
    return graph, Executable(done.program, done.library, done.weights)


def _states() -> Sequence[np.ndarray]:
    random = np.random.default_rng(1)
    return [random.standard_normal((6, 4)).astype(np.float32), np.zeros((6, 4), np.float32)]


def copies(program: Program) -> int:
    return sum(isinstance(step, Copy) or step.label == "relayout" for step in program.steps)  # type: ignore[union-attr]


@pytest.mark.parametrize("swap", [False, True], ids=["", "swap"])
@pytest.mark.parametrize("name", CASES)
def test_states_hold_what_the_graph_says(name: str, swap: bool) -> None:
    text, expected_copies = CASES[name]
    graph, executable = program(text, swap)
    states = list(_states())
    assert [state.initial is None for state in executable.program.states] == [False, True]
    for step in range(3):
        x, i = np.full((1, 4), step + 1.0, np.float32), np.array([2 * step])
        y, *states = interpret(graph, [x, i, *states])
        np.testing.assert_array_equal(executable(x, i), y)
        for found, wanted in zip(executable.states.tensors().values(), states, strict=True):
            np.testing.assert_array_equal(found, wanted)
    if not swap:
        assert copies(executable.program) == expected_copies
    executable.states.reset()
    for found, wanted in zip(executable.states.tensors().values(), _states(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_arguments_are_changed_where_they_lie() -> None:
    graph = parse("""graph @main(%x: f32[1,4], %s: token(f32[6,4]), %i: i64[1]) {
      %a, %s1 = state_read(%s) : f32[6,4], token(f32[6,4])
      %n = put(%a, %x, %i) {axes = [0]} : f32[6,4]
      %y = neg(%n) : f32[6,4]
      %u = state_write(%s1, %n) : token(f32[6,4])
      return %y, %u
    }""")
    specs = (TensorSpec("x", "f32", (1, 4)), TensorSpec("s", "f32", (6, 4), mutated=True), TensorSpec("i", "i64", (1,)))
    signature = Signature(specs, (TensorSpec("y", "f32", (6, 4)),))
    done = assemble(graph, HOST, signature, lambda task, template, space: space.default)
    assert copies(done.program) == 0 and not done.program.states
    assert [ref.space for ref in done.program.calls[0].arguments].count(Space.INPUT) == 4
    executable = Executable(done.program, done.library, done.weights)
    x, s, i = np.ones((1, 4), np.float32), np.zeros((6, 4), np.float32), np.array([3])
    y = executable(x, s, i)
    assert s.sum() == s[3].sum() == 4 and (y == -s).all()


def test_a_full_cache_is_an_error_and_stays_as_it_is() -> None:
    _, executable = program(CASES["updated and read"][0])
    before = _states()[0]
    with pytest.raises(IndexError, match="out of range"):
        executable(np.ones((1, 4), np.float32), np.array([6]))
    np.testing.assert_array_equal(executable.states.tensors()["s"], before)


def test_a_state_is_read_before_it_is_written_only() -> None:
    text = """graph @main(%x: f32[6,4], %s: token(f32[6,4])) {
      %s1 = state_write(%s, %x) : token(f32[6,4])
      %a, %s2 = state_read(%s1) : f32[6,4], token(f32[6,4])
      return %a, %s2
    }"""
    signature = Signature((TensorSpec("x", "f32", (6, 4)),), (TensorSpec("y", "f32", (6, 4)),))
    with pytest.raises(LoweringError, match="use the value written"):
        assemble(parse(text), HOST, signature, lambda task, template, space: space.default, states=[("s", ArrayConstant(_states()[0]))])
