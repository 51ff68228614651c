"""Which regions one kernel can compute: the templates decide."""

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
