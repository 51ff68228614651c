"""Operations that hold the graph together: constants and fused regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import TypeInferenceError
from ..types import TensorType, Type
from .definition import REQUIRED, Attributes, Cost, Op, Trait, no_flops, register, require

register(
    Op(
        "constant",
        (),
        lambda inputs, attributes: attributes["value"].type,
        lambda inputs, attributes: attributes["value"].array(),
        no_flops,
        {"value": REQUIRED},
        frozenset({Trait.SOURCE}),
        doc="a tensor known at compile time",
    )
)


class _Fusion(Op):
    """``fusion(operands...) {region}``: the region's results; one kernel computes all of it."""

    def infer_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Any] = ()) -> tuple[TensorType, ...]:
        require(len(regions) == 1, "fusion", f"has one region, got {len(regions)}")
        region = regions[0]
        require(
            len(inputs) == len(region.inputs),
            "fusion",
            f"{len(inputs)} operands for a region of {len(region.inputs)} inputs",
        )
        for position, (operand, inner) in enumerate(zip(inputs, region.inputs, strict=True)):
            require(operand == inner.type, "fusion", f"operand {position} is {operand}, the region takes {inner.type}")
        return tuple(value.tensor for value in region.outputs)

    def cost_of_region(self, region: Any) -> Cost:
        """FLOPs of every node of the region; bytes of its inputs and outputs only."""
        from . import lookup

        flops = 0
        for node in region.nodes:
            flops += lookup(node.op).flops(
                [value.tensor for value in node.inputs], node.attributes, [value.tensor for value in node.outputs]
            )
        return Cost(
            flops,
            sum(value.tensor.elements * value.tensor.dtype.nbytes for value in region.inputs),
            sum(value.tensor.elements * value.tensor.dtype.nbytes for value in region.outputs),
        )


def _no_reference(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    raise TypeInferenceError("fusion is evaluated by the interpreter, node by node")


FUSION = _Fusion(
    "fusion",
    ("operands*",),
    lambda inputs, attributes: (),
    _no_reference,
    no_flops,
    {},
    doc="a region computed by one kernel",
)
register(FUSION)
