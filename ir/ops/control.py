"""Control flow: operations that decide at run time which of their regions run.

Regions are closed: what they need of the enclosing graph is passed to them as operands. Mutable buffers pass through as tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..types import Dim, DType, TensorType, Type
from .attributes import BOOL, COUNT, DIM
from .definition import REQUIRED, Attributes, Cost, Trait, no_flops, register, require, tensor_bytes
from .structure import RegionOp, region_flops, run_by_interpreter

if TYPE_CHECKING:
    from ..graph import Graph, Node


def _is_predicate(type: Type) -> bool:
    return isinstance(type, TensorType) and type.dtype is DType.BOOL and type.shape == () and type.encoding.is_dense


def _tensors(types: Sequence[Type]) -> list[TensorType]:
    return [type for type in types if isinstance(type, TensorType)]


class _Cond(RegionOp):
    """``cond(predicate, operands...) {then} {else}``."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        require(len(regions) == 2, "cond", f"has two regions (then, else), got {len(regions)}")
        require(len(inputs) >= 1 and _is_predicate(inputs[0]), "cond", "the first operand is the predicate, a b1[]")
        for what, region in zip(("the first region", "the second region"), regions, strict=True):
            self.check_region(what, region, inputs[1:])
        then, otherwise = ([value.type for value in region.outputs] for region in regions)
        require(
            then == otherwise,
            "cond",
            f"the regions yield different types: {', '.join(map(str, then))} and {', '.join(map(str, otherwise))}",
        )
        return tuple(then)

    def cost_of_node(self, node: Node) -> Cost:
        """That of the dearer region; bytes of operands and results."""
        return Cost(
            max(region_flops(region) for region in node.regions),
            tensor_bytes(_tensors([value.type for value in node.inputs])),
            tensor_bytes(_tensors([value.type for value in node.outputs])),
        )


class _While(RegionOp):
    """``while(operands...) {condition} {body}``."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        require(len(regions) == 2, "while", f"has two regions (condition, body), got {len(regions)}")
        condition, body = regions
        self.check_region("the condition", condition, inputs)
        self.check_region("the body", body, inputs)
        yielded = [value.type for value in condition.outputs]
        require(
            len(yielded) == 1 and _is_predicate(yielded[0]), "while", f"the condition yields a b1[], not {', '.join(map(str, yielded))}"
        )
        writes = any(node.op == "state_write" for node in condition.walk())
        require(not writes, "while", "the condition must not write state: do it in the body")
        carried = [value.type for value in body.outputs]
        require(
            carried == list(inputs),
            "while",
            f"the body yields {', '.join(map(str, carried))}, the operands are {', '.join(map(str, inputs))}",
        )
        return tuple(carried)

    def cost_of_node(self, node: Node) -> Cost:
        """That of one round, as their number is not known; bytes of operands and results."""
        return Cost(
            sum(region_flops(region) for region in node.regions),
            tensor_bytes(_tensors([value.type for value in node.inputs])),
            tensor_bytes(_tensors([value.type for value in node.outputs])),
        )


class _Loop(RegionOp):
    """``loop(carried..., sequences..., invariants...) {body}``: see the registration."""

    def result_types(self, inputs: Sequence[Type], attributes: Attributes, regions: Sequence[Graph]) -> tuple[Type, ...]:
        trips, count, sliced = attributes["trips"], attributes["carried"], attributes["sliced"]
        require(len(regions) == 1, "loop", f"has one region (the body), got {len(regions)}")
        require(len(inputs) >= count + sliced, "loop", f"{count} carried values and {sliced} sequences, but {len(inputs)} operands")
        (body,) = regions
        sequences = inputs[count : count + sliced]
        for position, type in enumerate(sequences, count):
            whole = isinstance(type, TensorType) and type.rank > 0 and type.layout.is_row_major and type.encoding.is_dense
            require(
                whole, "loop", f"operand {position}, a sequence, is a {type}; a dense row-major tensor with an axis of rounds is needed"
            )
            assert isinstance(type, TensorType)
            require(
                type.shape[0] == trips, "loop", f"operand {position} has {type.shape[0]} elements along its first axis for {trips} rounds"
            )
        pieces = [TensorType(type.dtype, type.shape[1:]) for type in sequences if isinstance(type, TensorType)]
        self.check_region("the body", body, [*inputs[:count], *pieces, *inputs[count + sliced :]])
        yielded = [value.type for value in body.outputs]
        require(
            yielded[:count] == list(inputs[:count]),
            "loop",
            f"the body yields {', '.join(map(str, yielded[:count]))}, the carried values are {', '.join(map(str, inputs[:count]))}",
        )
        return (*yielded[:count], *(_stacked(type, trips) for type in yielded[count:]))

    def cost_of_node(self, node: Node) -> Cost:
        """That of all rounds; bytes of operands and results."""
        trips = node.attributes["trips"]
        return Cost(
            region_flops(node.regions[0]) * (trips if isinstance(trips, int) else 1),
            tensor_bytes(_tensors([value.type for value in node.inputs])),
            tensor_bytes(_tensors([value.type for value in node.outputs])),
        )


def _stacked(type: Type, trips: Dim) -> TensorType:
    plain = isinstance(type, TensorType) and type.layout.is_row_major and type.encoding.is_dense
    require(plain, "loop", f"the body yields a {type} for a round; a dense row-major tensor is needed")
    assert isinstance(type, TensorType)
    return TensorType(type.dtype, (trips, *type.shape))


register(
    _Cond(
        "cond",
        ("predicate", "operands*"),
        lambda inputs, attributes: (),
        run_by_interpreter,
        no_flops,
        traits=frozenset({Trait.CONTROL}),
        doc="the results of the first region if the predicate (b1[]) holds, else those of the second; both take the other operands",
    )
)
register(
    _While(
        "while",
        ("operands*",),
        lambda inputs, attributes: (),
        run_by_interpreter,
        no_flops,
        traits=frozenset({Trait.CONTROL}),
        doc="the operands, replaced by the results of the second region (the body) as long as the first (the condition) yields true",
    )
)
register(
    _Loop(
        "loop",
        ("operands*",),
        lambda inputs, attributes: (),
        run_by_interpreter,
        no_flops,
        {"trips": REQUIRED, "carried": REQUIRED, "sliced": 0, "reverse": False},
        traits=frozenset({Trait.CONTROL}),
        kinds={"trips": DIM, "carried": COUNT, "sliced": COUNT, "reverse": BOOL},
        doc="`trips` rounds of the region (the body). It takes the `carried` first operands, as the round before left them; of each of the "
        "`sliced` next ones its element along the first axis (from the last on if `reverse`); and the others as they are. It yields the "
        "carried values, then the elements of the other results, which stand in the order of the sequences",
    )
)
