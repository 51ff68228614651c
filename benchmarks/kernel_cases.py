"""The kernels of the benchmark models as regions, in groups that are timed together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..codegen.template import Template
from ..codegen.templates.conv import ConvTemplate
from ..codegen.templates.depthwise import DepthwiseTemplate
from ..codegen.templates.matmul import MatmulTemplate
from ..codegen.templates.registry import template_for
from ..ir import Constant, DType, Graph, GraphBuilder, Layout, TensorType, graph_cost

_NHWC = Layout((0, 2, 3, 1))
_ROWS, _WIDTH = 16384, 1024
"""Of the tensors of kernels that memory bounds: 64 MiB of fp32, more than the last-level cache of most processors."""


@dataclass(frozen=True)
class Case:
    """One kernel: a region, and which of its inputs are weights.

    ``arithmetic`` is what to count instead of the graph's own FLOPs. With ``streamed`` weights each call reads others, so that they come
    from memory as those of a whole model do. Not ``checkable`` is what a float64 interpretation has no memory for. ``known`` are, by
    position, inputs that are not random numbers.
    """

    name: str
    graph: Graph
    constants: frozenset[int]
    template: Template
    arithmetic: int | None = None
    streamed: bool = False
    checkable: bool = True
    known: Mapping[int, Constant] = field(default_factory=dict)

    @property
    def flops(self) -> int:
        return graph_cost(self.graph).flops if self.arithmetic is None else self.arithmetic

    @property
    def read(self) -> int:
        """Bytes of the inputs."""
        return sum(value.tensor.nbytes for value in self.graph.inputs)

    @property
    def written(self) -> int:
        """Bytes of the outputs."""
        return sum(value.tensor.nbytes for value in self.graph.outputs)


def f32(*shape: int, layout: Layout | None = None) -> TensorType:
    return TensorType(DType.FLOAT32, shape, layout)  # type: ignore[arg-type]


def linear(rows: int, columns: int, depth: int) -> Case:
    """A linear layer [rows, depth] -> [rows, columns] with bias."""
    builder = GraphBuilder()
    operands = [builder.input(f32(rows, depth)), builder.input(f32(columns, depth)), builder.input(f32(columns))]
    graph = builder.finish([builder.call("linear", *operands)])
    return Case(f"linear {rows}x{columns}x{depth}", graph, frozenset({1, 2}), MatmulTemplate())


def batched(batch: int, rows: int, columns: int, depth: int) -> Case:
    """A batched matrix product whose operands are both computed."""
    builder = GraphBuilder()
    operands = [builder.input(f32(batch, rows, depth)), builder.input(f32(batch, depth, columns))]
    graph = builder.finish([builder.call("matmul", *operands)])
    return Case(f"matmul {batch}x{rows}x{columns}x{depth}", graph, frozenset(), MatmulTemplate())


def depthwise(channels: int, size: int, window: int, stride: int = 1) -> Case:
    """A depthwise convolution [1, channels, size, size] with bias and relu6."""
    return convolution(channels, channels, size, window, stride, groups=channels)


def convolution(channels: int, outputs: int, size: int, window: int, stride: int = 1, *, residual: bool = False, groups: int = 1) -> Case:
    """A convolution [1, channels, size, size] with bias and relu, as residual networks have it: channels last, except an image."""
    pad = (window - 1) // 2
    attributes = {"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": groups}
    extent = (size + 2 * pad - window) // stride + 1
    result = f32(1, outputs, extent, extent, layout=_NHWC)
    builder = GraphBuilder()
    x = builder.input(f32(1, channels, size, size, layout=None if channels == 3 else _NHWC))
    weight, bias = builder.input(f32(outputs, channels // groups, window, window)), builder.input(f32(outputs))
    y = builder.add("conv", x, weight, bias, attributes=attributes, types=[result]).output
    if residual:
        y = builder.call("add", y, builder.input(result))
    activated = builder.call("relu", y) if groups == 1 else builder.call("clamp", y, min=0.0, max=6.0)
    graph = builder.finish([activated])
    kind = "conv" if groups == 1 else "depthwise"
    template = ConvTemplate() if groups == 1 else DepthwiseTemplate()
    name = f"{kind} {window}x{window}{f'/{stride}' if stride > 1 else ''} {channels}->{outputs} {size}x{size}{' +' if residual else ''}"
    return Case(name, graph, frozenset({1, 2}), template)


def residual_network() -> list[Case]:
    """The convolutions of ResNet-50, each once."""
    found = [convolution(3, 64, 224, 7, 2)]
    channels, size = 64, 56
    for stage in range(4):
        width, stride = 64 << stage, 1 if stage == 0 else 2
        found += [convolution(channels, width, size, 1), convolution(width, width, size, 3, stride)]
        found.append(convolution(channels, 4 * width, size, 1, stride))
        channels, size = 4 * width, size // stride
        found += [convolution(width, channels, size, 1, residual=True), convolution(channels, width, size, 1)]
        found.append(convolution(width, width, size, 3))
    return list({case.name: case for case in found}.values())


def rowwise(operation: str, rows: int = _ROWS, width: int = _WIDTH) -> Case:
    """An operation on rows, 64 MiB by default: ``layer_norm`` with weight and bias, ``softmax``, ``gelu``, or ``add`` of two tensors."""
    builder = GraphBuilder()
    x = builder.input(f32(rows, width))
    if operation == "layer_norm":
        y = builder.call(operation, x, builder.input(f32(width)), builder.input(f32(width)))
    elif operation == "softmax":
        y = builder.call(operation, x, axis=1)
    elif operation == "add":
        y = builder.call(operation, x, builder.input(f32(rows, width)))
    else:
        y = builder.call(operation, x)
    graph = builder.finish([y])
    constants = frozenset({1, 2}) if operation == "layer_norm" else frozenset[int]()
    return Case(f"{operation} {rows}x{width}", graph, constants, _template(graph))


def attention(length: int, heads: int = 12, width: int = 64) -> Case:
    """Causal self-attention. Of its FLOPs only the two products count, and of those only the pairs that the mask keeps."""
    builder = GraphBuilder()
    operands = [builder.input(f32(1, heads, length, width)) for _ in range(3)]
    graph = builder.finish([builder.call("attention", *operands, scale=1 / math.sqrt(width), is_causal=True)])
    kept = heads * length * (length + 1) // 2
    name = f"causal attention {heads}x{length}x{width}"
    return Case(name, graph, frozenset(), _template(graph), arithmetic=4 * kept * width, checkable=length <= 2048)


def decode(columns: int, depth: int) -> Case:
    """A linear layer on one token, whose weights come from memory."""
    alone = linear(1, columns, depth)
    return Case(f"decode {columns}x{depth}", alone.graph, alone.constants, alone.template, streamed=True)


def _template(graph: Graph) -> Template:
    found = template_for(graph)
    assert found is not None, "every operation has a template"
    return found


def groups() -> Mapping[str, list[Case]]:
    """The kernels of the benchmark models, by what is characteristic of them."""
    products = ((128, 768, 768), (128, 3072, 768), (128, 768, 3072), (128, 2304, 768), (1024, 1024, 1024), (197, 768, 768))
    further = ((128, 50257, 768), (128, 2816, 1024), (32, 1024, 784), (32, 1024, 1024), (32, 10, 1024), (4, 4096, 4096))
    small = ((1, 2816, 1024), (1, 1024, 2816), (1, 1000, 2048))
    return {
        "products": [
            *(linear(*shape) for shape in (*products, *further, *small)),
            batched(12, 128, 128, 64),
            batched(12, 128, 64, 128),
        ],
        "convolutions": [convolution(256, 512, 14, 1), *residual_network()],
        "depthwise convolutions": [
            depthwise(*shape) for shape in ((32, 112, 3), (96, 112, 3, 2), (144, 56, 3), (192, 28, 3), (384, 14, 3), (960, 7, 3))
        ],
        "rows in memory": [rowwise(operation) for operation in ("layer_norm", "softmax", "gelu", "add")],
        "attention": [attention(length) for length in (128, 256, 512, 1024, 2048, 4096, 8192)],
        "one token": [
            decode(*shape) for shape in ((1024, 1024), (2816, 1024), (1024, 2816), (32000, 1024), (768, 768), (3072, 768), (50257, 768))
        ],
    }
