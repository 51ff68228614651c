"""Building and caching kernels."""

from __future__ import annotations

import pathlib
import re

import pytest
from check import region, tensor
from harness import HOST

from mlc.codegen.build import CompiledKernel, build_module, compile_kernel, in_parallel, link_library
from mlc.codegen.task import Task
from mlc.codegen.template import LoweredKernel
from mlc.codegen.templates.attention import Attention
from mlc.codegen.templates.elementwise import Elementwise
from mlc.errors import BuildError
from mlc.ir import Layout


def lowered() -> LoweredKernel:
    graph = region([tensor((8,))], lambda b, x: b.call("exp", x))
    task = Task(graph, frozenset(), HOST, 1)
    kernel = Elementwise().lower(task, Elementwise().space(task).default)
    return LoweredKernel(kernel.function, {0: Layout((0,), ((0, 4),))}, 128)


def test_second_build_comes_from_the_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    first = compile_kernel("key", HOST, lowered)

    def unexpected() -> LoweredKernel:
        raise AssertionError("the kernel was lowered again")

    assert compile_kernel("key", HOST, unexpected) == first
    with pytest.raises(AssertionError):
        compile_kernel("another key", HOST, unexpected)


def test_damaged_cache_entries_are_built_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path))
    first = compile_kernel("key", HOST, lowered)
    (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
    for damage in (b"", entry.read_bytes()[:-3], b"{}\n"):
        entry.write_bytes(damage)
        assert compile_kernel("key", HOST, lowered).symbol == first.symbol
        assert entry.read_bytes() != damage


def test_unwritable_cache_is_no_error(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MLC_CACHE_DIR", str(blocked))
    assert isinstance(compile_kernel("key", HOST, lowered), CompiledKernel)


def test_parallel_work_keeps_its_order_and_raises() -> None:
    assert in_parallel(lambda x: x * x, range(20), jobs=4) == [x * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda x: 1 // x, [1, 0], jobs=2)


def test_failing_compiler_is_quoted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="nonsense"):
        link_library([], {"entry.c": "nonsense"}, [], tmp_path / "x.so")
    monkeypatch.setenv("CC", "/missing/compiler")
    with pytest.raises(BuildError, match="CC"):
        link_library([], {}, [], tmp_path / "x.so")


def test_buffers_on_the_stack_begin_at_cache_lines() -> None:
    graph = region([tensor((1, 2, 32, 16))] * 3, lambda b, q, k, v: b.call("attention", q, k, v, scale=0.25))
    task = Task(graph, frozenset(), HOST, 1)
    module = build_module(Attention().lower(task, Attention().space(task).default).function, "kernel", HOST)
    alignments = re.findall(r"= alloca \[\d+ x float\], align (\d+)", module.inspect_source("ll"))
    assert alignments and all(int(alignment) % 64 == 0 for alignment in alignments)
