"""All templates of each family of targets, most specific first."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence

from ...errors import LoweringError
from ...ir import Graph
from ..target import Kind
from ..template import Template

# Module, class. The first that takes a graph compiles it; elementwise takes what has no anchor.
_LOOPS = (
    ("sparse_gather", "SparseGather"),
    ("sparse_rows", "SparseRows"),
    ("sparse_panels", "SparsePanels"),
    ("sparse_conv", "SparseConv"),
    ("sparse_select", "SparseSelect"),
    ("sparse_matvec", "SparseMatvec"),
    ("matmul", "NarrowMatmul"),
    ("matmul", "MatmulTemplate"),
    ("grouped_matmul", "GroupedMatmul"),
    ("monarch", "Monarch"),
    ("conv", "NarrowConv"),
    ("conv", "ConvTemplate"),
    ("depthwise", "DepthwiseTemplate"),
    ("conv_transpose", "ConvTransposeTemplate"),
    ("attention", "Attention"),
    ("pooling", "Pooling"),
    ("reduction", "Reduction"),
    ("scan", "Scan"),
    ("sort", "Sort"),
    ("scatter", "Scatter"),
    ("put", "Put"),
    ("rowwise", "Rowwise"),
    ("contraction", "Contraction"),
    ("elementwise", "Elementwise"),
)
_GPU = (
    ("..gpu.windows", "GpuDirectConv"),
    ("..gpu.matvec", "GpuMatvec"),
    ("..gpu.gemm", "GpuGemm"),
    ("..gpu.attention", "GpuAttention"),
    ("..gpu.windows", "GpuPooling"),
    ("..gpu.rowwise", "GpuReduction"),
    ("..gpu.rowwise", "GpuRowwise"),
    ("..gpu.ordered", "GpuScan"),
    ("..gpu.ordered", "GpuSort"),
    ("..gpu.updates", "GpuScatter"),
    ("..gpu.updates", "GpuPut"),
    ("..gpu.elementwise", "GpuElementwise"),
)
# Words are read as other numbers, which the C of microcontrollers has no form for.
_CPU = (("encoded_matmul", "EncodedMatmul"), *_LOOPS)
_FAMILIES = {Kind.CPU: _CPU, Kind.CORTEX_M: _LOOPS, Kind.CUDA: _GPU}


@functools.cache
def templates(kind: Kind = Kind.CPU) -> Sequence[Template]:
    """Every template for a family of targets, in the order in which they are asked."""
    found = []
    for module, name in _FAMILIES[kind]:
        found.append(getattr(importlib.import_module(module if module.startswith(".") else f".{module}", __package__), name)())
    return tuple(found)


def template_for(graph: Graph, kind: Kind = Kind.CPU) -> Template | None:
    """The template that compiles ``graph``, the region of a fusion, for a family of targets; None if there is none."""
    return next((template for template in templates(kind) if template.takes(graph)), None)


def template_named(name: str) -> Template:
    """The template of that name, whatever it generates code for; LoweringError if there is none."""
    known = {template.name: template for kind in _FAMILIES for template in templates(kind)}
    if name not in known:
        raise LoweringError(f"no template is called '{name}' (there are: {', '.join(known)})")
    return known[name]
