"""Which layouts values get, and where data moves."""

from __future__ import annotations

import pytest
from golden import check, transformed

from mlc.ir import Layout, is_alias, parse, reshaped_layout

CONV = "{stride=[1,1], padding=[[0,0],[0,0]], dilation=[1,1]}"


def test_convolutions_run_channels_last_and_the_user_sees_row_major() -> None:
    check(
        f"""
        graph @main(%x: f32[2,3,4,4], %w: f32[8,3,1,1], %v: f32[8,8,1,1]) {{
          %a = conv(%x, %w) {CONV} : f32[2,8,4,4]
          %b = relu(%a) : f32[2,8,4,4]
          %c = conv(%b, %v) {CONV} : f32[2,8,4,4]
          %d = add(%c, %b) : f32[2,8,4,4]
          return %d
        }}""",
        "layout",
        f"""
        graph @main(%x: f32[2,3,4,4], %w: f32[8,3,1,1], %v: f32[8,8,1,1]) {{
          %a = conv(%x, %w) {CONV} : f32[2,8,4,4]{{0,2,3,1}}
          %b = relu(%a) : f32[2,8,4,4]{{0,2,3,1}}
          %c = conv(%b, %v) {CONV} : f32[2,8,4,4]{{0,2,3,1}}
          %d = add(%c, %b) : f32[2,8,4,4]{{0,2,3,1}}
          %e = relayout(%d) : f32[2,8,4,4]
          return %e
        }}""",
    )


def test_an_input_of_many_channels_is_moved_once_for_all_its_readers() -> None:
    text = transformed(
        f"""
        graph @main(%x: f32[1,16,4,4], %w: f32[8,16,1,1]) {{
          %a = conv(%x, %w) {CONV} : f32[1,8,4,4]
          %b = conv(%x, %w) {CONV} : f32[1,8,4,4]
          %c = add(%a, %b) : f32[1,8,4,4]
          %d = reduce(%c) {{kind="mean", axes=[2,3]}} : f32[1,8]
          return %d
        }}""",
        "layout",
    )
    assert text.count("relayout") == 1


def test_global_pooling_ends_the_image_layout_without_moving_data() -> None:
    check(
        f"""
        graph @main(%x: f32[2,3,4,4], %w: f32[8,3,1,1], %l: f32[5,8]) {{
          %a = conv(%x, %w) {CONV} : f32[2,8,4,4]
          %p = reduce(%a) {{kind="mean", axes=[2,3], keepdims=true}} : f32[2,8,1,1]
          %f = reshape(%p) {{shape=[2,8]}} : f32[2,8]
          %y = linear(%f, %l) : f32[2,5]
          return %y
        }}""",
        "layout",
        f"""
        graph @main(%x: f32[2,3,4,4], %w: f32[8,3,1,1], %l: f32[5,8]) {{
          %a = conv(%x, %w) {CONV} : f32[2,8,4,4]{{0,2,3,1}}
          %p = reduce(%a) {{kind="mean", axes=[2,3], keepdims=true}} : f32[2,8,1,1]
          %f = reshape(%p) {{shape=[2,8]}} : f32[2,8]
          %y = linear(%f, %l) : f32[2,5]
          return %y
        }}""",
    )


def test_patches_become_a_sequence_without_moving_data() -> None:
    check(
        f"""
        graph @main(%x: f32[1,3,4,4], %w: f32[8,3,1,1], %g: f32[8]) {{
          %a = conv(%x, %w) {CONV} : f32[1,8,4,4]
          %r = reshape(%a) {{shape=[1,8,16]}} : f32[1,8,16]
          %p = permute(%r) {{order=[0,2,1]}} : f32[1,16,8]
          %y = layer_norm(%p, %g) : f32[1,16,8]
          return %y
        }}""",
        "layout",
        f"""
        graph @main(%x: f32[1,3,4,4], %w: f32[8,3,1,1], %g: f32[8]) {{
          %a = conv(%x, %w) {CONV} : f32[1,8,4,4]{{0,2,3,1}}
          %r = reshape(%a) {{shape=[1,8,16]}} : f32[1,8,16]{{0,2,1}}
          %p = permute(%r) {{order=[0,2,1]}} : f32[1,16,8]
          %y = layer_norm(%p, %g) : f32[1,16,8]
          return %y
        }}""",
    )


def test_attention_stores_its_result_as_the_next_layer_reads_it() -> None:
    check(
        """
        graph @main(%x: f32[1,3,8], %w: f32[8,8]) {
          %r = reshape(%x) {shape=[1,3,2,4]} : f32[1,3,2,4]
          %q = permute(%r) {order=[0,2,1,3]} : f32[1,2,3,4]
          %a = attention(%q, %q, %q) {scale=0.5} : f32[1,2,3,4]
          %p = permute(%a) {order=[0,2,1,3]} : f32[1,3,2,4]
          %f = reshape(%p) {shape=[1,3,8]} : f32[1,3,8]
          %y = linear(%f, %w) : f32[1,3,8]
          return %y
        }""",
        "layout",
        """
        graph @main(%x: f32[1,3,8], %w: f32[8,8]) {
          %r = reshape(%x) {shape=[1,3,2,4]} : f32[1,3,2,4]
          %q = permute(%r) {order=[0,2,1,3]} : f32[1,2,3,4]{0,2,1,3}
          %a = attention(%q, %q, %q) {scale=0.5} : f32[1,2,3,4]{0,2,1,3}
          %p = permute(%a) {order=[0,2,1,3]} : f32[1,3,2,4]
          %f = reshape(%p) {shape=[1,3,8]} : f32[1,3,8]
          %y = linear(%f, %w) : f32[1,3,8]
          return %y
        }""",
    )


def test_flattening_an_image_moves_data_when_it_must() -> None:
    text = transformed(
        f"""
        graph @main(%x: f32[1,3,4,4], %w: f32[8,3,1,1], %l: f32[5,128]) {{
          %a = conv(%x, %w) {CONV} : f32[1,8,4,4]
          %f = reshape(%a) {{shape=[1,128]}} : f32[1,128]
          %y = linear(%f, %l) : f32[1,5]
          return %y
        }}""",
        "layout,fuse",
    )
    assert "conv(" in text and "%f = reshape(%a) {shape = [1, 128]} : f32[1,128]" in text and "f32[1,8,4,4]{0,2,3,1}" in text


def test_graphs_without_images_stay_row_major() -> None:
    text = transformed(
        "graph @main(%x: f32[1,2,4,4]) { %y = softmax(%x) {axis=1} : f32[1,2,4,4]\n return %y }",
        "layout",
    )
    assert "{0,2,3,1}" not in text


@pytest.mark.parametrize(
    ("shape", "order", "result", "expected"),
    [
        ((2, 3, 4, 5), (0, 2, 3, 1), (2, 3, 20), (0, 2, 1)),
        ((2, 3, 4, 5), (0, 2, 3, 1), (2, 12, 5), None),
        ((1, 3, 4, 5), (0, 2, 3, 1), (3, 4, 5), (1, 2, 0)),
        ((2, 12, 5), (0, 2, 1), (2, 3, 4, 5), (0, 3, 1, 2)),
        ((2, 3, 1, 1), (0, 2, 3, 1), (2, 3), (0, 1)),
        ((2, 3, 4), (2, 0, 1), (6, 4), (1, 0)),
        ((2, 3, 4), (1, 0, 2), (6, 4), None),
    ],
)
def test_layout_behind_a_reshape(shape: tuple[int, ...], order: tuple[int, ...], result: tuple[int, ...], expected: object) -> None:
    found = reshaped_layout(shape, Layout(order), result)
    assert (found.order if found is not None else None) == expected


def moved(text: str) -> int:
    """How many elements the relayouts and the views that are no aliases move."""
    graph = parse(text)
    return sum(int(node.output.tensor.size) for node in graph.nodes if node.op in ("relayout", "permute", "reshape") and not is_alias(node))


def test_the_layout_of_a_sum_follows_the_larger_part_of_its_readers() -> None:
    """Convolutions write and read most of it; the other operand and a softmax are row-major."""
    text = transformed(
        f"""
        graph @main(%x: f32[1,16,8,8], %w: f32[16,16,1,1], %v: f32[64,16,1,1], %m: f32[1,16,8,8]) {{
          %a = conv(%x, %w) {CONV} : f32[1,16,8,8]
          %b = add(%a, %m) : f32[1,16,8,8]
          %c = relu(%b) : f32[1,16,8,8]
          %d = conv(%c, %v) {CONV} : f32[1,64,8,8]
          %e = conv(%b, %v) {CONV} : f32[1,64,8,8]
          %s = softmax(%b) {{axis=3}} : f32[1,16,8,8]
          %t = reduce(%s) {{kind="sum", axes=[0,1,2,3]}} : f32[]
          %u = add(%d, %e) : f32[1,64,8,8]
          %y = reduce(%u) {{kind="sum", axes=[0,1,2,3]}} : f32[]
          return %t, %y
        }}""",
        "layout",
    )
    assert moved(text) == 1024  # the graph's input, which is row-major, and nothing else
    assert "%b = add(%a, %m) : f32[1,16,8,8]{0,2,3,1}" in text


def test_a_chain_of_views_is_undone_where_that_moves_less() -> None:
    """What is permuted, computed with and permuted back lies as it did all the way."""
    text = transformed(
        """
        graph @main(%x: f32[4,6,8], %w: f32[5,8]) {
          %a = permute(%x) {order=[1,2,0]} : f32[6,8,4]
          %b = exp(%a) : f32[6,8,4]
          %c = permute(%b) {order=[2,0,1]} : f32[4,6,8]
          %y = linear(%c, %w) : f32[4,6,5]
          return %y
        }""",
        "layout",
    )
    assert moved(text) == 0
