"""What code for processors with instructions for narrow numbers looks like: they make up the innermost loops, which spill nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from check import tensor

from mlc.codegen.build import build_module
from mlc.codegen.target import Target
from mlc.codegen.task import Task
from mlc.codegen.template import Template
from mlc.codegen.templates import template_for
from mlc.codegen.templates.conv import NarrowConv
from mlc.codegen.templates.matmul import NarrowMatmul
from mlc.costmodel.assembly_facts import innermost_loops
from mlc.ir import DENSE, DType, Encoding, Graph, GraphBuilder

Dtypes = tuple[DType, DType, DType]
"""Of operand, weight and sums."""
Make = Callable[..., Graph]

BYTES = (DType.UINT8, DType.INT8, DType.INT32)
BF16 = (DType.BFLOAT16, DType.BFLOAT16, DType.FLOAT32)
SIGNED = (DType.INT8, DType.INT8, DType.INT32)
SHORT = Encoding("short_sums", (("words", 2), ("axis", 1)))
"""Of weights whose products fit 16 bits."""


def linear(dtypes: Dtypes, encoding: Encoding = DENSE) -> Graph:
    x, weight, sums = dtypes
    builder = GraphBuilder()
    stored = tensor((256, 768), weight).with_encoding(encoding)
    operands = [builder.input(tensor((128, 768), x)), builder.input(stored), builder.input(tensor((256,), sums))]
    return builder.finish([builder.call("linear", *operands, dtype=sums)])


def conv(dtypes: Dtypes, encoding: Encoding = DENSE) -> Graph:
    x, weight, sums = dtypes
    builder = GraphBuilder()
    stored = tensor((64, 64, 3, 3), weight).with_encoding(encoding)
    operands = [builder.input(tensor((1, 64, 28, 28), x, (0, 2, 3, 1))), builder.input(stored)]
    attributes = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "dtype": sums}
    result = tensor((1, 64, 28, 28), sums, (0, 2, 3, 1))
    return builder.finish(builder.add("conv", *operands, attributes=attributes, types=[result]).outputs)


@pytest.mark.parametrize(
    ("dtypes", "processor", "instruction"),
    [
        (BYTES, "znver4", "vpdpbusd"),
        (BYTES, "sapphirerapids", "vpdpbusd"),
        (BYTES, "alderlake", "vpdpbusd"),
        (BF16, "znver4", "vdpbf16ps"),
        (BF16, "znver5", "vdpbf16ps"),
        (SIGNED, "znver4", "vpdpwssd"),
        (BYTES, "skylake-avx512", "vpmaddwd"),
        (BYTES, "x86-64-v3", "vpmaddwd"),
    ],
)
@pytest.mark.parametrize(("template", "make"), [(NarrowMatmul(), linear), (NarrowConv(), conv)], ids=["linear", "conv"])
def test_innermost_loops(template: Template, make: Make, dtypes: Dtypes, processor: str, instruction: str) -> None:
    inner = innermost_loop(template, make(dtypes), processor, instruction)
    multiplying = sum(instruction in line for line in inner)
    assert multiplying > 40, "the reduction is unrolled over a tile of registers"
    assert loads(inner) < multiplying, "operands are read once for several products"
    assert not [line for line in inner if "(%rsp" in line], "nothing is kept on the stack"


@pytest.mark.parametrize("processor", ["x86-64-v3", "skylake-avx512"])
@pytest.mark.parametrize(("template", "make"), [(NarrowMatmul(), linear), (NarrowConv(), conv)], ids=["linear", "conv"])
def test_innermost_loops_that_sum_in_16_bits(template: Template, make: Make, processor: str) -> None:
    inner = innermost_loop(template, make(BYTES, SHORT), processor, "vpmaddubsw")
    words, widened = (sum(instruction in line for line in inner) for instruction in ("vpmaddubsw", "vpmaddwd"))
    assert words > 20 and words == 2 * widened == 2 * sum("vpaddw" in line for line in inner), "two words share what widens their sum"
    assert loads(inner) < words
    assert not [line for line in inner if "(%rsp" in line], "nothing is kept on the stack"


def test_addresses_of_strided_pixels_are_distances_from_one() -> None:
    """LLVM otherwise computes them in vectors: 155 us in place of 112 for a shortcut of ResNet-50."""
    builder = GraphBuilder()
    operands = [builder.input(tensor((1, 256, 56, 56), DType.UINT8, (0, 2, 3, 1))), builder.input(tensor((512, 256, 1, 1), DType.INT8))]
    attributes = {"stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "dtype": DType.INT32}
    result = tensor((1, 512, 28, 28), DType.INT32, (0, 2, 3, 1))
    graph = builder.finish(builder.add("conv", *operands, attributes=attributes, types=[result]).outputs)
    inner = innermost_loop(NarrowConv(), graph, "znver5", "vpdpbusd", threads=2)
    assert sum("vpdpbusd" in line for line in inner) > 40
    assert not [line for line in inner if line.startswith(("vpextr", "vextract", "vpsra"))]


def test_codes_are_made_between_multiply_adds() -> None:
    """Behind a tile of 64 channels they take a fifth of the time: with saturation, and one multiplication each."""
    builder = GraphBuilder()
    operands = [builder.input(tensor((1, 64, 28, 28), DType.UINT8, (0, 2, 3, 1))), builder.input(tensor((128, 64, 1, 1), DType.INT8))]
    operands.append(builder.input(tensor((128,), DType.INT32)))
    attributes = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "dtype": DType.INT32}
    sums = builder.add("conv", *operands, attributes=attributes).output
    sums.type = tensor((1, 128, 28, 28), DType.INT32, (0, 2, 3, 1))
    rates = builder.input(tensor((128, 1, 1)))
    graph = builder.finish([builder.call("quantise", builder.call("cast", sums, dtype=DType.FLOAT32), rates, dtype=DType.UINT8)])
    inner = innermost_loop(NarrowConv(), graph, "znver5", "vpmovusdb")
    codes = sum(line.startswith("vpmovusdb") for line in inner)
    assert codes == sum(line.startswith("vmulps") for line in inner) == sum(line.startswith("vcvtps2dq") for line in inner) > 0
    assert sum(line.startswith("vpdpbusd") for line in inner) > 10 * codes
    assert not [line for line in inner if line.startswith(("vminps", "vpaddd", "vpmovdb"))]


@pytest.mark.parametrize(("processor", "has_instruction"), [("znver4", True), ("skylake-avx512", False)])
def test_rounding_to_bfloat16(processor: str, has_instruction: bool) -> None:
    """An instruction where there is one, and nothing else but loads, stores and the loop."""
    builder = GraphBuilder()
    graph = builder.finish([builder.call("cast", builder.input(tensor((64, 256), DType.FLOAT32)), dtype=DType.BFLOAT16)])
    target = Target.parse(f"cpu -mcpu={processor} -threads=1")
    task = Task(graph, frozenset(), target, 1)
    template = template_for(graph)
    assert template is not None
    assembly = build_module(template.lower(task, template.space(task).default).function, "kernel", target).inspect_source("asm")
    (inner,) = innermost_loops(assembly)
    rounding = sum(line.startswith("vcvtneps2bf16") for line in inner)
    assert (rounding > 0) is has_instruction
    assert not has_instruction or len(inner) <= 3 * rounding + 3


def loads(lines: Sequence[str]) -> int:
    return sum(line.startswith(("vmovdqu", "vmovups", "vpbroadcast", "vbroadcast")) for line in lines)


def innermost_loop(template: Template, graph: Graph, processor: str, instruction: str, threads: int = 1) -> Sequence[str]:
    """The innermost loop of the kernel for ``graph`` that has most of ``instruction``."""
    target = Target.parse(f"cpu -mcpu={processor} -threads={threads}")
    task = Task(graph, frozenset({1, 2}), target, threads)
    kernel = template.lower(task, template.space(task).default)
    assembly = build_module(kernel.function, "kernel", target).inspect_source("asm")
    return max(innermost_loops(assembly), key=lambda lines: sum(instruction in line for line in lines))
