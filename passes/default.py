"""The passes that turn an imported graph into one of fused kernels."""

from __future__ import annotations

from ..codegen.target import Target
from .pipeline import Pipeline

_PREPARE = (
    "widen-halves,fold-constants,control-flow,simplify,common-subexpressions,raise-composites,fold-constants,simplify,fold-batch-norm,"
    "common-subexpressions"
)
_MERGE = (
    "control-flow,widen-halves,batch-layers,horizontal,decompose,simplify,common-subexpressions,encode-weights,narrow-operands,keep-halves,"
    "narrow-activations,common-subexpressions,fold-rates,lead-slices"
)
_LOWER = "layout,fuse,dead-code"

SIMPLE = f"{_PREPARE},control-flow,widen-halves,decompose,simplify,common-subexpressions"
"""What leaves a graph of the simplest operations, before layers are merged or lowered: what ``precision="auto"`` decides on."""


def default_pipeline(target: Target, *, sparsity: bool = True) -> Pipeline:
    """What the driver runs for ``target``; without ``sparsity`` zeros in weights are numbers like others."""
    return Pipeline.parse(",".join([_PREPARE, _MERGE, *(["sparsity"] if sparsity else []), _LOWER]))
