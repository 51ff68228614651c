"""The thread pool, and calls from many threads and forked processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from native_programs import adder, build, mlp, mlp_reference, program, spec

from mlc.errors import KernelError
from mlc.ir.program import Signature
from mlc.runtime import Executable, _native

LOOPS = """
#include <stdatomic.h>
typedef struct { const mlc_context* context; atomic_int* hits; int32_t fail; int32_t nested; } work;
static int32_t inner(int32_t index, int32_t count, void* closure) {
  work* w = closure;
  atomic_fetch_add(&w->hits[index], 1);
  return 0;
}
static int32_t outer(int32_t index, int32_t count, void* closure) {
  work* w = closure;
  if (w->nested) return w->context->parallel_for(w->context, inner, COUNT, closure);
  atomic_fetch_add(&w->hits[index], 1);
  return index == w->fail ? 40 + index : 0;
}
/* io: int32 [fail, nested, repetitions] -> int32 hits of each index */
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  const int32_t* options = io[0];
  memset(io[1], 0, sizeof(int32_t) * COUNT);
  work w = {c, io[1], options[0], options[1]};
  int32_t code = 0;
  for (int32_t i = 0; i < options[2] && code == 0; ++i) code = c->parallel_for(c, outer, w.nested ? 3 : COUNT, &w);
  return code;
}
"""
"""Counts how often each index of a parallel loop runs."""

RELEASED = 10**7
"""FLOPs of a program that gives up the interpreter's lock while it runs."""


def loops(folder: Path, count: int, threads: int = 4) -> Callable[..., np.ndarray]:
    signature = Signature((spec("options", 3, dtype="i32"),), (spec("hits", count, dtype="i32"),))
    run = Executable(program(signature, flops=RELEASED), build(LOOPS, folder, COUNT=count))
    # More threads than this machine may have, to provoke what the scheduler can do.
    run.threads = threads

    def call(fail: int = -1, nested: bool = False, repetitions: int = 1) -> np.ndarray:
        return run(np.array([fail, nested, repetitions], np.int32))

    return call


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 64, 1000, 70000, 140001])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_index_runs_exactly_once(tmp_path: Path, count: int, threads: int) -> None:
    hits = loops(tmp_path, count, threads)(repetitions=3)
    assert (hits == 3).all()


def test_many_launches(tmp_path: Path) -> None:
    assert (loops(tmp_path, 5)(repetitions=20000) == 20000).all()


def test_failures_of_tasks_come_back(tmp_path: Path) -> None:
    run = loops(tmp_path, 8)
    for fail in range(8):
        with pytest.raises(KernelError, match=f"code {40 + fail}"):
            run(fail=fail)
    assert (run() == 1).all()


def test_nested_loops_run(tmp_path: Path) -> None:
    assert (loops(tmp_path, 50)(nested=True, repetitions=10) == 30).all()


def in_threads(count: int, body: Callable[[int], None]) -> None:
    """Runs body(0..count-1) at the same time and raises what one of them raised."""
    problems: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded(index: int) -> None:
        try:
            barrier.wait()
            body(index)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


@pytest.mark.parametrize("flops", [1000, RELEASED], ids=["locked", "released"])
def test_calls_from_many_threads_do_not_disturb_each_other(tmp_path: Path, flops: int) -> None:
    """Each call has an arena of its own: the perceptron's hidden layer lives there."""
    run, weights = mlp(tmp_path, flops=flops)

    def body(index: int) -> None:
        x = np.random.default_rng(index).standard_normal((1, 16)).astype(np.float32)
        expected = mlp_reference(weights, x)
        tensor = torch.from_numpy(x)
        for _ in range(300):
            np.testing.assert_allclose(run(x), expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(run(tensor).numpy(), expected, rtol=1e-4, atol=1e-4)

    in_threads(8, body)


def test_parallel_loops_from_many_threads(tmp_path: Path) -> None:
    run = loops(tmp_path, 16)

    def body(index: int) -> None:
        for _ in range(50):
            assert (run(repetitions=20) == 20).all()

    in_threads(6, body)


SLOW = """
#include <time.h>
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  /* Each call writes its number all over its arena, sleeps, and looks whether it is still there. */
  int64_t* mine = arena;
  for (int i = 0; i < 1024; ++i) mine[i] = *(int64_t*)io[0];
  struct timespec pause = {0, 20000000};
  nanosleep(&pause, NULL);
  for (int i = 0; i < 1024; ++i) if (mine[i] != *(int64_t*)io[0]) return 1;
  *(int64_t*)io[1] = (int64_t)arena;
  return 0;
}
"""


def test_calls_in_flight_at_once_have_arenas_of_their_own(tmp_path: Path) -> None:
    signature = Signature((spec("number", 1, dtype="i64"),), (spec("address", 1, dtype="i64"),))
    run = Executable(program(signature, arena=8192, flops=RELEASED), build(SLOW, tmp_path))
    addresses: list[int] = []
    in_threads(4, lambda index: addresses.append(int(run(np.array([index]))[0])))
    assert len(set(addresses)) == 4 and all(address % 64 == 0 for address in addresses)
    again = [int(run(np.array([index]))[0]) for index in range(3)]
    assert len(set(again)) == 1 and again[0] in addresses
    assert _native.trim() >= 4 * 8192


def test_large_arenas_lie_on_huge_page_boundaries(tmp_path: Path) -> None:
    signature = Signature((spec("number", 1, dtype="i64"),), (spec("address", 1, dtype="i64"),))
    run = Executable(program(signature, arena=5 << 20), build(SLOW, tmp_path))
    assert int(run(np.array([1]))[0]) % (2 << 20) == 0
    _native.trim()


def test_the_pool_survives_a_fork(tmp_path: Path) -> None:
    run = loops(tmp_path, 64)
    assert (run(repetitions=10) == 10).all()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        right = bool((run(repetitions=100) == 100).all())
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (run(repetitions=10) == 10).all()


FLUSH = """
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
typedef struct { float* out; pthread_t launcher; atomic_int helped; } work;
static int32_t part(int32_t index, int32_t count, void* closure) {
  work* w = closure;
  volatile float tiny = 1e-40f;
  w->out[index] = tiny * 0.5f;
  if (!pthread_equal(w->launcher, pthread_self())) atomic_store(&w->helped, 1);
  /* The launcher gives the workers time to come. */
  for (int i = 0; i < 2000 && !atomic_load(&w->helped); ++i) {
    struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
  }
  return atomic_load(&w->helped) ? 0 : 1;
}
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  work w = {io[1], pthread_self(), 0};
  return c->parallel_for(c, part, 64, &w);
}
"""
"""Halves a denormal on at least two threads."""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormals")
def test_workers_follow_the_callers_treatment_of_denormals(tmp_path: Path) -> None:
    run = Executable(program(Signature((spec("x", 1),), (spec("out", 64),))), build(FLUSH, tmp_path))
    run.threads = 4
    x = np.zeros(1, np.float32)
    kept = np.full(64, np.float32(1e-40) * np.float32(0.5))
    np.testing.assert_array_equal(run(x), kept)
    torch.set_flush_denormal(True)
    try:
        flushed = run(x)
    finally:
        torch.set_flush_denormal(False)
    assert not flushed.any()
    np.testing.assert_array_equal(run(x), kept)


def test_threads_respect_the_affinity_of_the_process(tmp_path: Path) -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from mlc.runtime import _native; print(_native.available_cpus())"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["1"]
    assert adder(tmp_path, threads=64).threads <= len(os.sched_getaffinity(0))
