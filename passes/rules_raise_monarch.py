"""The rule that recognises a Monarch product written out in two batched products with a transposition between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir import Dim, Node, Value, product
from .rewriting import LocalRewriter, Replacement, Rule


@dataclass(frozen=True)
class _Pieces:
    """What the second product reads: ``[groups, rows, blocks * rank]``, made of the first one's ``[blocks, rows, groups * rank]``."""

    first: Node
    rank: int


def _pieces(rewriter: LocalRewriter, value: Value) -> _Pieces | None:
    """The first product, if ``value`` is its result with blocks and groups exchanged."""
    node, rank = value.node, 1
    if node is not None and node.op == "reshape":
        apart = node.inputs[0].node
        if apart is None or apart.op != "permute" or apart.attributes["order"] != (2, 1, 0, 3):
            return None
        groups, rows, blocks, rank = apart.output.tensor.shape
        if value.tensor.shape != (groups, rows, blocks * rank) or not isinstance(rank, int):
            return None
        node = apart.inputs[0].node
        if node is None or node.op != "reshape" or node.inputs[0].tensor.shape != (blocks, rows, groups * rank):
            return None
        node = node.inputs[0].node
    elif node is not None and node.op == "permute" and node.attributes["order"] == (2, 1, 0):
        node = node.inputs[0].node
    else:
        return None
    if node is None or node.op != "matmul" or not rewriter.is_single_use(node.output):
        return None
    return _Pieces(node, rank)


def monarch(rewriter: LocalRewriter, node: Node) -> Replacement:
    """The second of two products with constant batches of matrices -> monarch; the permutation of its result is what others then cancel."""
    gathered, second = node.inputs
    if gathered.tensor.rank != 3 or second.tensor.rank != 3 or second.constant is None:
        return None
    pieces = _pieces(rewriter, gathered)
    if pieces is None:
        return None
    parts, first = pieces.first.inputs
    if parts.tensor.rank != 3 or first.tensor.rank != 3 or first.constant is None:
        return None
    rank = pieces.rank
    blocks, depth, _ = first.tensor.static_shape
    groups, _, width = second.tensor.static_shape
    if parts.tensor.shape[0] != blocks or gathered.tensor.shape[0] != groups:
        return None
    rows = parts.tensor.shape[1]
    x = _reshaped(rewriter, rewriter.emit("permute", parts, order=(1, 0, 2)), (rows, blocks * depth))
    right = rewriter.emit("permute", _reshaped(rewriter, first, (blocks, depth, groups, rank)), order=(0, 1, 3, 2))
    left = rewriter.emit("permute", _reshaped(rewriter, second, (groups, blocks, rank, width)), order=(1, 2, 3, 0))
    result = rewriter.emit("monarch", x, right, left)
    return rewriter.emit("permute", _reshaped(rewriter, result, (rows, width, groups)), order=(2, 0, 1))


def _reshaped(rewriter: LocalRewriter, value: Value, shape: tuple[Dim, ...]) -> Value:
    assert product(shape) == value.tensor.elements or not value.tensor.is_static
    return rewriter.emit("reshape", value, shape=shape)


RULES: dict[str, Sequence[Rule]] = {"matmul": (monarch,)}
