"""Which regions one kernel can compute, and compute well: the templates decide."""

from __future__ import annotations

from ..codegen.target import Kind
from ..ir import Graph

_UNCOMPUTED = frozenset({"state_read", "state_write"})
"""Operations that name places in memory."""


def template_takes(region: Graph, kind: Kind = Kind.CPU) -> bool:
    """Whether one of codegen's templates for a family of targets takes ``region``."""
    # Imported late: the templates load TVM.
    from ..codegen.templates import template_for

    if any(node.op in _UNCOMPUTED for node in region.nodes):
        return False
    return template_for(region, kind) is not None


def pulls_operand(region: Graph, kind: Kind = Kind.CPU) -> bool:
    """Whether the template that takes ``region`` computes a few operations on its contraction's operand in passing."""
    from ..codegen.templates import template_for

    template = template_for(region, kind)
    return template is not None and template.pulls_operand(region)
