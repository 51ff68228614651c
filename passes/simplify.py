"""Algebraic simplification and canonical forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import Graph
from . import rules_arithmetic, rules_attention, rules_contraction, rules_movement
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .rewriting import LocalRewriter, merged

RULES = merged(rules_arithmetic.RULES, rules_movement.RULES, rules_contraction.RULES, rules_attention.RULES)


@register_pass
@dataclass(frozen=True)
class Simplify(Pass):
    """Applies the rules of ``rules_*.py``: identities, views of views, operands that broadcast by themselves, biases, known masks."""

    name: ClassVar[str] = "simplify"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        return without_dead_code(LocalRewriter(graph, RULES, ctx).run())
