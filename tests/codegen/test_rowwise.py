"""The row-wise template: softmax and normalisations, along and across memory, with residual connections and epilogues."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from check import check, region, tensor
from harness import HOST

from mlc.codegen.build import build_module
from mlc.codegen.task import Task
from mlc.codegen.templates.rowwise import Rowwise

TEMPLATE = Rowwise()
NHWC = (0, 2, 3, 1)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 37), 1), ((2, 5, 130), 2), ((4, 7), 0), ((2, 9, 33), 1), ((5,), 0), ((3, 1), 1)], ids=str)
def test_softmax(op: str, shape: tuple[int, ...], axis: int) -> None:
    check(TEMPLATE, region([tensor(shape)], lambda b, x: b.call(op, x, axis=axis)), all_configs=shape == (3, 37))


def test_softmax_with_masked_entries_and_prologue() -> None:
    x = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32) * 30
    mask = np.where(np.random.default_rng(1).random((50,)) < 0.5, -np.inf, 0).astype(np.float32)
    graph = region([tensor((4, 50)), tensor((50,))], lambda b, x, m: b.call("softmax", b.call("add", x, m), axis=1))
    check(TEMPLATE, graph, inputs=[x, mask])


def test_layer_norm_of_a_residual_sum_gives_both() -> None:
    def build(b, x, y, weight, bias):
        total = b.call("add", x, y)
        return [total, b.call("layer_norm", total, weight, bias)]

    for width in (768, 70, 5):
        check(TEMPLATE, region([tensor((2, 3, width))] * 2 + [tensor((width,))] * 2, build), threads=2, all_configs=width == 70)


def test_layer_norm_over_two_axes_without_parameters() -> None:
    check(TEMPLATE, region([tensor((3, 4, 9))], lambda b, x: b.call("layer_norm", x, axes=2)))
    check(TEMPLATE, region([tensor((3, 4, 9)), tensor((4, 9))], lambda b, x, w: b.call("layer_norm", x, w, axes=2)))


def test_layer_norm_keeps_its_accuracy_on_a_large_offset() -> None:
    values = (np.random.default_rng(0).standard_normal((4, 300)) + 1000).astype(np.float32)
    check(TEMPLATE, region([tensor((4, 300))], lambda b, x: b.call("layer_norm", x)), inputs=[values], tolerance=1e-4)


def test_layer_norm_of_channels_last_images() -> None:
    def build(b, x, weight, bias):
        return b.call("layer_norm", b.call("permute", x, order=(0, 2, 3, 1)), weight, bias)

    check(TEMPLATE, region([tensor((2, 24, 3, 5), order=NHWC), tensor((24,)), tensor((24,))], build))
    check(TEMPLATE, region([tensor((2, 24, 3, 5)), tensor((24,)), tensor((24,))], build))


def test_rms_norm_with_epilogue_through_views() -> None:
    def build(b, x, weight, gate):
        normal = b.call("reshape", b.call("rms_norm", x, weight), shape=(2, 3, 4, 16))
        return b.call("mul", b.call("permute", normal, order=(0, 2, 1, 3)), gate)

    check(TEMPLATE, region([tensor((2, 3, 64)), tensor((64,)), tensor((2, 4, 3, 16))], build))


@pytest.mark.parametrize("order", [None, NHWC])
@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (32, 4), (6, 6), (6, 1)])
def test_group_norm(order: tuple[int, ...] | None, channels: int, groups: int) -> None:
    def build(b, x, weight, bias):
        return b.call("silu", b.call("group_norm", x, weight, bias, groups=groups))

    orders = [order] if order else []
    check(TEMPLATE, region([tensor((2, channels, 5, 7), order=order), tensor((channels,)), tensor((channels,))], build, orders))


def test_rows_too_long_to_stage() -> None:
    graph = region([tensor((2, 20000)), tensor((2, 20000))], lambda b, x, y: b.call("softmax", b.call("add", x, y), axis=1))
    check(TEMPLATE, graph)


@pytest.mark.parametrize("width", [64, 37])
def test_outputs_that_no_cache_can_keep_are_stored_past_it(width: int) -> None:
    """Whole aligned vectors are; the ends of rows that do not fit vectors are not."""
    target = dataclasses.replace(HOST, l3_bytes=1024)
    graph = region([tensor((21, width))], lambda b, x: b.call("softmax", x, axis=1))
    check(TEMPLATE, graph, target=target)
    task = Task(graph, frozenset(), target, 1)
    code = build_module(TEMPLATE.lower(task, TEMPLATE.space(task).default).function, "kernel", target).inspect_source("ll")
    assert ("!nontemporal" in code) == (width == 64)
