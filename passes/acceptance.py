"""Which regions one kernel can compute: the templates decide."""

from __future__ import annotations

from ..ir import Graph


def template_takes(region: Graph) -> bool:
    """Whether one of codegen's templates takes ``region``."""
    # Imported late: the templates load TVM.
    from ..codegen.templates import template_for

    return template_for(region) is not None
