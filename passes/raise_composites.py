"""Raising: norms, activations, softmax, attention and structured products that were written out become single operations again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..ir import Graph
from . import rules_raise_activation, rules_raise_monarch, rules_raise_norm
from .base import Context, Pass, register_pass
from .common_subexpressions import without_dead_code
from .rewriting import LocalRewriter, merged
from .simplify import RULES as SIMPLIFICATIONS

RULES = merged(rules_raise_norm.RULES, rules_raise_activation.RULES, rules_raise_monarch.RULES)


@register_pass
@dataclass(frozen=True)
class RaiseComposites(Pass):
    """Recognises decomposed rms_norm, layer_norm, softmax, silu, gelu, hardswish, attention and monarch, which templates compute whole.

    Results round differently than the steps would, within the accuracy that the composite promises.
    """

    name: ClassVar[str] = "raise-composites"

    def apply(self, graph: Graph, ctx: Context) -> Graph:
        return without_dead_code(LocalRewriter(graph, merged(RULES, SIMPLIFICATIONS), ctx).run())
