"""All templates, most specific first."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence

from ...errors import LoweringError
from ...ir import Graph
from ..template import Template

# Module, class. The first that takes a graph compiles it; elementwise takes what has no anchor.
_TEMPLATES = (
    ("matmul", "MatmulTemplate"),
    ("grouped_matmul", "GroupedMatmul"),
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


@functools.cache
def templates() -> Sequence[Template]:
    """Every template, in the order in which they are asked."""
    return tuple(getattr(importlib.import_module(f".{module}", __package__), name)() for module, name in _TEMPLATES)


def template_for(graph: Graph) -> Template | None:
    """The template that compiles ``graph``, the region of a fusion; None if there is none."""
    return next((template for template in templates() if template.takes(graph)), None)


def template_named(name: str) -> Template:
    """The template of that name; LoweringError if there is none."""
    for template in templates():
        if template.name == name:
            return template
    raise LoweringError(f"no template is called '{name}' (there are: {', '.join(template.name for template in templates())})")
