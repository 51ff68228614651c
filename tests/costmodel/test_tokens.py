"""Kernels as tokens: stable, bounded, without what unrolling repeats, and with every number told apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.costmodel.kernel_text import loop_text
from mlc.costmodel.sampling import Family, sample_tasks
from mlc.costmodel.tokens import CHANNELS, MAX_TOKENS, UNKNOWN, Tokens, Vocabulary, kernel_tokens

TARGET = Target.parse("cpu -mcpu=znver3 -threads=2")
EXECUTIONS, COPIES = CHANNELS.index("executions"), CHANNELS.index("copies")


@pytest.fixture(scope="module")
def kernels() -> list[tuple[Task, Config, str]]:
    """Two configs of a matrix product and of a convolution: a plain one, and one of those with the most text."""
    found = []
    for task in (*sample_tasks(1, 0, TARGET, 2, [Family.LINEAR]), *sample_tasks(1, 0, TARGET, 2, [Family.CONVOLUTION])):
        template = template_for(task.graph, TARGET.kind)
        assert template is not None
        configs = template.space(task).configs
        long = max(configs, key=lambda config: (config["unroll"], config["vectors"]))
        found += [(task, config, loop_text(task, config)) for config in (configs[0], long)]
    return found


@pytest.fixture(scope="module")
def task() -> Task:
    return sample_tasks(1, 0, TARGET, 2, [Family.CONVOLUTION])[0]


def same(one: Tokens, other: Tokens) -> bool:
    return one.words == other.words and np.array_equal(one.channels, other.channels)


def test_real_kernels_have_stable_bounded_and_different_tokens(kernels: list[tuple[Task, Config, str]]) -> None:
    texts = [kernel_tokens(task, loops) for task, _, loops in kernels]
    again = [kernel_tokens(task, loop_text(task, config)) for task, config, _ in kernels]
    assert all(map(same, texts, again))
    for number, text in enumerate(texts):
        assert 100 < len(text) <= MAX_TOKENS
        assert np.isfinite(text.channels).all()
        assert not any(same(text, other) for other in texts[:number])
    assert max(len(kernel_tokens(task, loops, 10**6)) for task, _, loops in kernels) < 2000
    assert max(len(loops) for _, _, loops in kernels) > 30_000  # characters


def test_the_arithmetic_of_a_real_kernel_runs_most(kernels: list[tuple[Task, Config, str]]) -> None:
    for task, _, loops in kernels:
        text = kernel_tokens(task, loops)
        multiplies = [number for number, word in enumerate(text.words) if word == "llvm.fma"]
        assert text.channels[multiplies, EXECUTIONS].max() == text.channels[:, EXECUTIONS].max()


def unrolled(times: int, extent: int = 192) -> str:
    """A loop whose body loads and multiplies ``times`` times over."""
    lines = [f"for k{times} in range({extent}):"]
    for number in range(times):
        lines.append(f"    a{number}: T.let[T.float32] = in0[a_at + {number * 384}]" if number else "    a0: T.let[T.float32] = in0[a_at]")
        lines += [f"    acc[{8 * lane}:{8 * lane + 8}] = fma(a{number}, b{lane})" for lane in range(3)]
    return "\n".join(lines)


def test_unrolling_changes_a_count_and_not_the_length(task: Task) -> None:
    few, many = kernel_tokens(task, unrolled(4)), kernel_tokens(task, unrolled(64))
    assert len(few) == len(many)
    assert few.words != many.words
    assert many.words[-40:].count("times") == 2  # the group, and the multiplications in it
    assert few.channels[-1, EXECUTIONS] * 16 == pytest.approx(np.log2(1 + 192 * 4 * 3))
    assert many.channels[-1, EXECUTIONS] * 16 == pytest.approx(np.log2(1 + 192 * 64 * 3))
    assert many.channels[-1, COPIES] * 16 == pytest.approx(np.log2(1 + 64 * 3))


@pytest.mark.parametrize(("one", "other"), [(191, 192), (192, 193), (1_000_000, 1_000_001), (16, 17), (3, 4)])
def test_numbers_that_differ_look_different(task: Task, one: int, other: int) -> None:
    assert not same(kernel_tokens(task, f"x = in0[{one}]"), kernel_tokens(task, f"x = in0[{other}]"))


def test_names_lose_what_makes_them_unique_and_types_keep_it(task: Task) -> None:
    assert same(kernel_tokens(task, "t15[lane13] = in0[k2]"), kernel_tokens(task, "t99[lane4] = in0[k7]"))
    assert kernel_tokens(task, "x: T.let[T.float32x8] = y").words != kernel_tokens(task, "x: T.let[T.float32x16] = y").words
    assert kernel_tokens(task, "x = in0[1]").words != kernel_tokens(task, "x = in1[1]").words


def test_loops_of_other_extents_are_not_the_same_loop_again(task: Task) -> None:
    loops = "for i in range({}):\n    x[i] = y[i]\nfor i in range({}):\n    x[i] = y[i]"
    assert "times" in kernel_tokens(task, loops.format(24, 24)).words
    assert "times" not in kernel_tokens(task, loops.format(24, 48)).words


def test_what_runs_least_is_left_out_of_a_long_text(task: Task) -> None:
    prologue = "\n".join(f"{'abcdefghijklmnop'[number % 16]}{'y' * (number // 16)} = z + {number}" for number in range(200))
    text = kernel_tokens(task, f"{prologue}\nfor i in range(100):\n    hot[i] = cold[i]", most=200)
    assert len(text) <= 200
    assert {"hot", "cold", "conv", "threads"} <= set(text.words)


def test_words_that_were_never_seen_share_a_number(task: Task) -> None:
    known = [kernel_tokens(task, "x = y"), kernel_tokens(task, "x = y")]
    vocabulary = Vocabulary.of(known)
    assert UNKNOWN not in vocabulary.encode(known[0])
    assert vocabulary.encode(kernel_tokens(task, "x = never_seen")).tolist().count(UNKNOWN) == 1
    assert vocabulary.encode(known[0]).max() < len(vocabulary)


def test_machines_are_told_apart_by_what_they_can_do(task: Task) -> None:
    texts = [
        kernel_tokens(dataclasses.replace(task, target=Target.parse(f"cpu -mcpu={name} -threads=2"), threads=threads), "x = y")
        for name, threads in (("x86-64-v3", 2), ("x86-64-v4", 2), ("x86-64-v3", 1))
    ]
    assert not same(texts[0], texts[1]) and not same(texts[0], texts[2])


@pytest.mark.parametrize(
    ("loops", "runs"),
    [
        ("for i in T.parallel(9):\n    x = y", 9),
        ("for i, j in T.grid(7, 24):\n    x = y", 168),
        ("for i in range(4, 9):\n    for lane in T.vectorized(8):\n        x = y", 40),
        # Each of two threads takes half of the tiles.
        (
            "for t in T.parallel(2):\n    low1: T.let[T.int32] = t * 3\n    high2: T.let[T.int32] = t * 3 + 3\n"
            "    count: T.let[T.int32] = T.max(T.min(high2, 6) - low1, 0)\n    for tile in range(low1, low1 + count):\n        x = y",
            6,
        ),
        # The last thread has less to do: 4 tiles and 1.
        ("for t in T.parallel(2):\n    for tile in range(t * 4, T.min(t * 4 + 4, 5)):\n        x = y", 5),
        ("for i in range(n):\n    x = y", 1),
    ],
)
def test_how_often_a_statement_runs(task: Task, loops: str, runs: int) -> None:
    assert kernel_tokens(task, loops).channels[-1, EXECUTIONS] * 16 == pytest.approx(np.log2(1 + runs))
