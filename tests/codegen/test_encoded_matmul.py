"""Products with encoded constants against the numbers that these decode to: every encoding, way of computing and shape of tile."""

from __future__ import annotations

import numpy as np
import pytest
from anchored import check, f32, run, task_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import HOST, assembled

from mlc.codegen.build import build_module
from mlc.codegen.constant_layout import constant_layouts_document, constant_layouts_of
from mlc.codegen.instruction_sets import multiplies_bytes
from mlc.codegen.kernels import kernel_nodes, known_constants
from mlc.codegen.space import Config
from mlc.codegen.target import Target
from mlc.codegen.task import Numerics, Task
from mlc.codegen.templates.encoded_geometry import Algorithm
from mlc.codegen.templates.encoded_matmul import EncodedMatmul
from mlc.ir import ArrayConstant, EncodedConstant, Graph, GraphBuilder, encode, interpret
from mlc.ir.encoding import STORED, Encoding
from mlc.ir.encodings import Affine, BlockScaled, Codebook, Grouped, Ternary

TEMPLATE = EncodedMatmul()
BYTES_OF_AVX2 = Target.parse("cpu -mcpu=x86-64-v3")

ENCODINGS = {
    "i8 by column": Affine("i8", 0).encoding,
    "u8 by column with zero points": Affine("u8", 0, STORED, STORED).encoding,
    "i8 by tensor": Affine("i8").encoding,
    "u8 with numbers in the type": Affine("u8", None, 0.02, 131).encoding,
    "i8 in groups": Grouped("i8", 32, 1, "f16").encoding,
    "i4 in groups": Grouped("i4", 32, 1, "f16").encoding,
    "u4 in groups with zero points": Grouped("u4", 64, 1, "bf16", zero_point=True).encoding,
    "i3 in groups": Grouped("i3", 64, 1).encoding,
    "u3 in groups with zero points": Grouped("u3", 128, 1, "f16", zero_point=True).encoding,
    "i2 in groups": Grouped("i2", 96, 1, "bf16").encoding,
    "u2 in groups with zero points": Grouped("u2", 64, 1, "f16", zero_point=True).encoding,
    "ternary by column": Ternary(0).encoding,
    "ternary by tensor": Ternary(None, "f16").encoding,
    **{f"mx {storage}": BlockScaled(storage, 1).encoding for storage in ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1", "i8")},
    "codebook of 3 bits": Codebook(3, 64, 1, "f16").encoding,
    "codebook of 4 bits": Codebook(4, 32, 1).encoding,
}
FIXED = [name for name in ENCODINGS if name[:2] in ("i8", "u8", "i4", "u4", "i2", "u2", "te")]
"""Integers that fill bytes."""


def weight(encoding: Encoding, *shape: int, seed: int = 0) -> EncodedConstant:
    """Numbers around 0.3, so that sums do not cancel what zero points stand for."""
    numbers = np.random.default_rng(seed).standard_normal(shape) + 0.3
    return encode(ArrayConstant(numbers.astype(np.float32)), encoding)


def linear(rows: int, constant: EncodedConstant) -> Graph:
    """relu(x @ w.T + bias)."""
    columns, depth = constant.type.static_shape
    builder = GraphBuilder()
    operands = [builder.input(f32(rows, depth)), builder.input(constant.type), builder.input(f32(columns))]
    return builder.finish([builder.call("relu", builder.call("linear", *operands))])


def first_of_each(task: Task) -> list[Config]:
    """The best config of every algorithm that there is."""
    ranked = sorted(TEMPLATE.space(task).configs, key=lambda config: TEMPLATE.estimated_cycles(task, [config])[0])
    return list({config["algorithm"]: config for config in reversed(ranked)}.values())


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_every_encoding_by_every_algorithm(encoding: Encoding) -> None:
    constant = weight(encoding, 43, 140)
    for rows in (1, 5, 33):
        task = task_of(linear(rows, constant), {1, 2})
        check(TEMPLATE, task, first_of_each(task) if rows == 5 else None, {1: constant})


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_panels_hold_the_numbers_of_the_reference_to_the_last_bit(encoding: Encoding) -> None:
    constant = weight(encoding, 19, 70)
    builder = GraphBuilder()
    graph = builder.finish([builder.call("linear", builder.input(f32(70, 70)), builder.input(constant.type))])
    task = task_of(graph, {1})
    (config,) = [each for each in first_of_each(task) if each["algorithm"] == Algorithm.PANELS]
    (result,) = run(TEMPLATE, task, config, [np.eye(70, dtype=np.float32), constant.array()], {1: constant})
    np.testing.assert_array_equal(result, constant.array().T)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    encoding=st.sampled_from(list(ENCODINGS.values())),
    rows=st.integers(1, 20),
    depth=st.integers(1, 260),
    columns=st.integers(1, 90),
    seed=st.integers(0, 100),
)
def test_every_point_of_the_space_is_right(encoding: Encoding, rows: int, depth: int, columns: int, seed: int) -> None:
    constant = weight(encoding, columns, depth, seed=seed)
    task = task_of(linear(rows, constant), {1, 2})
    check(TEMPLATE, task, TEMPLATE.space(task).sample(1, seed), {1: constant})


@pytest.mark.parametrize(
    "encoding", [Grouped("u4", 32, 0, "f16", zero_point=True).encoding, Affine("i8", 1).encoding, BlockScaled("e2m1", 0).encoding], ids=str
)
def test_matmul_has_its_columns_last(encoding: Encoding) -> None:
    constant = weight(encoding, 90, 41)
    builder = GraphBuilder()
    x, w = builder.input(f32(2, 3, 90)), builder.input(constant.type)
    task = task_of(builder.finish([builder.call("relu", builder.call("matmul", x, w))]), {1})
    check(TEMPLATE, task, first_of_each(task), {1: constant})


def test_prologue_and_epilogue_with_views() -> None:
    constant = weight(ENCODINGS["i4 in groups"], 96, 64)
    builder = GraphBuilder()
    x, w = builder.input(f32(2, 4, 3, 16)), builder.input(constant.type)
    residual, scale = builder.input(f32(2, 3, 96)), builder.input(f32(96))
    merged = builder.call("reshape", builder.call("permute", x, order=(0, 2, 1, 3)), shape=(2, 3, 64))
    y = builder.call("linear", builder.call("silu", merged), w)
    y = builder.call("mul", builder.call("gelu", builder.call("add", y, residual)), scale)
    heads = builder.call("permute", builder.call("reshape", y, shape=(2, 3, 3, 32)), order=(0, 2, 1, 3))
    task = task_of(builder.finish([heads, y]), {1, 3})
    check(TEMPLATE, task, first_of_each(task), {1: constant})


def test_depth_in_blocks_where_a_panel_does_not_fit_the_second_level_cache() -> None:
    constant = weight(ENCODINGS["u3 in groups with zero points"], 40, 700)
    task = task_of(linear(17, constant), {1, 2}, Target.parse("cpu -mcpu=x86-64-v3 -l2=32"))
    blocked = [config for config in TEMPLATE.space(task).configs if config["algorithm"] == Algorithm.PANELS]
    assert all(config["block_depth"] < 700 and config["block_depth"] % 128 == 0 for config in blocked)
    check(TEMPLATE, task, blocked[::3], {1: constant})


@pytest.mark.parametrize("name", ["i8 by column", "i4 in groups", "ternary by column", "mx e4m3", "mx e2m1", "codebook of 3 bits"])
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v2"])
def test_narrow_vectors(processor: str, name: str) -> None:
    constant = weight(ENCODINGS[name], 37, 100)
    task = task_of(linear(3, constant), {1, 2}, Target.parse(f"cpu -mcpu={processor}"))
    check(TEMPLATE, task, first_of_each(task), {1: constant})


@pytest.mark.parametrize(
    ("name", "algorithm", "instruction"),
    [
        ("i4 in groups", Algorithm.REGISTERS, "vcvtdq2ps"),
        ("codebook of 4 bits", Algorithm.REGISTERS, "vpermd"),
        ("mx e4m3", Algorithm.REGISTERS, "vcvtph2ps"),
        ("i2 in groups", Algorithm.LOOKUP, "vpermd"),
        ("i4 in groups", Algorithm.FIXED, "vpdpbusd"),
        ("i8 by column", Algorithm.FIXED, "vpdpbusd"),
    ],
)
def test_wide_vectors_are_used_where_the_target_has_them(name: str, algorithm: Algorithm, instruction: str) -> None:
    target = Target.parse("cpu -mcpu=znver4 -threads=1")
    task = task_of(linear(1, weight(ENCODINGS[name], 64, 256)), {1, 2}, target)
    config = next(each for each in TEMPLATE.space(task).configs if each["algorithm"] == algorithm)
    assembly = build_module(TEMPLATE.lower(task, config).function, "kernel", target).inspect_source("asm")
    assert any(instruction in line and "%zmm" in line for line in assembly.splitlines())


def test_infinite_activations_as_with_a_dense_weight_where_numerics_are_strict() -> None:
    constant = weight(ENCODINGS["i4 in groups"], 20, 64)
    builder = GraphBuilder()
    graph = builder.finish([builder.call("linear", builder.input(f32(2, 64)), builder.input(constant.type))])
    task = Task(graph, frozenset({1}), HOST, 1, Numerics.STRICT)
    assert {config["algorithm"] for config in TEMPLATE.space(task).configs} == {Algorithm.PANELS}
    x = np.ones((2, 64), np.float32)
    x[0, 5] = np.inf
    with np.errstate(invalid="ignore"):
        (expected,) = interpret(graph, [x, constant.array()])
        (result,) = run(TEMPLATE, task, TEMPLATE.space(task).default, [x, constant.array()], {1: constant})
    assert np.isinf(expected[0]).any()
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, BYTES_OF_AVX2) for name in ("i4 in groups", "u4 in groups with zero points", "ternary by column")),
        # Whole bytes too, where this machine has VNNI, but for zero points of each column: what these take off is reckoned in fp32.
        *((name, HOST) for name in FIXED if multiplies_bytes(HOST) and name != "u8 by column with zero points"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.mcpu,
)
def test_activations_in_24_bits_lose_no_more_than_fp32(name: str, target: Target) -> None:
    constant = weight(ENCODINGS[name], 40, 4096)
    builder = GraphBuilder()
    graph = builder.finish([builder.call("linear", builder.input(f32(3, 4096)), builder.input(constant.type))])
    task = task_of(graph, {1}, target)
    configs = [config for config in TEMPLATE.space(task).configs if config["algorithm"] == Algorithm.FIXED]
    assert configs
    generator = np.random.default_rng(0)
    powers = 10.0 ** generator.integers(-12, 12, (3, 128))
    x = generator.standard_normal((3, 4096), np.float32) * np.repeat(powers, 32, 1).astype(np.float32)
    # Spans of zeros, of tiny numbers, and of one number of both signs whose quotient by the unit is the largest.
    x[0], x[1, :2048], x[1, 2048:], x[2, :32] = 0, 1e-36, 7.7, -x[2, 0]
    numbers = constant.array().astype(np.float64).T
    expected, sizes = x.astype(np.float64) @ numbers, np.abs(x.astype(np.float64)) @ np.abs(numbers)
    for config in configs:
        (result,) = run(TEMPLATE, task, config, [x, constant.array()], {1: constant})
        assert not result[0].any()
        for row in (1, 2):
            assert np.linalg.norm(result[row] - expected[row]) <= 1e-6 * np.linalg.norm(sizes[row])


def test_few_rows_are_products_of_bytes_or_of_registers_and_many_rows_decoded_first() -> None:
    target = Target.parse("cpu -mcpu=znver3 -threads=2")
    wide = Target.parse("cpu -mcpu=znver4 -threads=2")

    def chosen(name: str, rows: int, target: Target = target) -> Algorithm:
        return Algorithm(TEMPLATE.space(task_of(linear(rows, weight(ENCODINGS[name], 512, 512)), {1, 2}, target)).default["algorithm"])

    assert {chosen(name, rows, wide) for name in ("i8 by column", "i4 in groups", "ternary by column") for rows in (4, 8)} == {
        Algorithm.FIXED
    }
    assert chosen("i4 in groups", 2, wide) is Algorithm.REGISTERS, "memory hides that it takes more instructions"
    assert chosen("i3 in groups", 4, wide) is chosen("mx e4m3", 1, wide) is Algorithm.REGISTERS
    assert chosen("i2 in groups", 1) is chosen("ternary by column", 1) is chosen("i4 in groups", 1) is Algorithm.FIXED
    assert chosen("i4 in groups", 8) is chosen("i8 by column", 1) is chosen("i2 in groups", 8) is Algorithm.REGISTERS
    assert chosen("i4 in groups", 64) is chosen("mx e4m3", 64) is Algorithm.PANELS


def test_takes_only_weights_whose_codes_it_can_read() -> None:
    for encoding in (Affine("i8", 1).encoding, BlockScaled("e4m3", 1, 16).encoding, Grouped("i4", 32, 0).encoding):
        assert not TEMPLATE.takes(linear(1, weight(encoding, 64, 64)))
    builder = GraphBuilder()
    w = builder.input(weight(ENCODINGS["i4 in groups"], 64, 64).type)
    assert not TEMPLATE.takes(builder.finish([builder.call("linear", w, w)]))


def test_a_program_stores_the_codes() -> None:
    constant = weight(ENCODINGS["i4 in groups"], 256, 512)
    builder = GraphBuilder()
    x = builder.input(f32(3, 512), "x")
    graph = builder.finish([builder.call("linear", x, builder.constant(constant))])
    (kernel,) = kernel_nodes(graph, HOST, 1, Numerics.FAST, known_constants(graph))
    assert kernel.template.name == "encoded_matmul"
    program = assembled(graph)
    assert program.program.constant_bytes == constant.encoded_bytes
    layouts = TEMPLATE.lower(kernel.task, TEMPLATE.space(kernel.task).default).constant_layouts
    assert constant_layouts_of(constant_layouts_document(layouts)) == dict(layouts)
