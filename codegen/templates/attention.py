"""Attention without a stored score matrix (after FlashAttention, Dao et al. 2022): softmax(q k^T * scale + mask) v, block by block."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from ...ir import DType, Graph, Value
from ..emit import Kernel, pulls
from ..emit.scalar import vectorises
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from .attention_blocks import VALUE_VECTORS, BlockedAttention
from .attention_cost import AttentionCost
from .attention_problem import AttentionProblem
from .attention_rows import RowAttention
from .attention_scores import Tiles
from .loops import largest_power_of_two, runs_parallel, worth_parallel
from .region import AnchoredRegion

_VIEWS = ("reshape", "permute", "broadcast_to", "slice", "relayout")
_DECODING = (*_VIEWS, "bitwise_and", "cast", "concat", "mul", "shift_left", "shift_right", "sub")
"""What may lie between keys or values and how they are stored where they are decoded as they are read."""
_FEW_QUERIES = 8
"""Queries below which keys and values may be decoded where they are read, since each is read about once."""
_SCORES = 1 << 16
"""Scores that are kept on the stack at once where there are few queries."""

_STACK = 96 << 10
"""Bytes that the buffers of a block of queries may take."""
_ONE_BLOCK = 256
"""Keys up to which one block has all of them, so that no earlier result is scaled anew."""
_TASKS = 4
"""Blocks of queries that each thread should have, so that they end at about the same time."""


class Attention(Template):
    """One ``attention``, its keys and values read through views, its result passed to an elementwise epilogue. Where there are few queries
    keys and values may be stored in fewer bits (caches of a decoder): as floats of 16 bits, or as integers times scales. A byte may hold
    several, if they are parts of a row one behind the other.

    With many queries, vectors hold one score of each of several queries, so that softmax never crosses lanes; keys are read as scalars,
    from wherever they lie. With few queries (decoding), vectors run along a key's elements and rows of scores are kept.
    Knobs: ``queries`` vectors of queries by ``keys`` keys make a register tile; ``block`` keys are scored at once, by ``parts`` times
    as many queries; ``parallel`` 0 keeps the kernel on one thread.
    """

    name: ClassVar[str] = "attention"
    revision: ClassVar[int] = 3

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("attention",), any_dtype=True, symbolic=True)
        if region is None or not all(vectorises(node) for node in graph.nodes if pulls(node)):
            return False
        q, k, v, *_ = region.anchor.inputs
        if any(value.tensor.dtype is not DType.FLOAT32 for value in (q, k, v, region.anchor.output)):
            return False
        heads_and_widths = (q.tensor.shape[1], q.tensor.shape[3], k.tensor.shape[1], v.tensor.shape[3])
        few = isinstance(q.tensor.shape[2], int) and q.tensor.shape[2] < _FEW_QUERIES
        read = _DECODING if few else _VIEWS
        if not _reads(k, read) or not _reads(v, read) or not all(isinstance(dim, int) for dim in heads_and_widths):
            return False
        keys = k.tensor.shape[2]
        return not isinstance(keys, int) or keys <= _SCORES

    def space(self, task: Task) -> Space:
        symbolic = _problem(task.graph, None)
        task = task.representative
        problem = _problem(task.graph, None)
        assert isinstance(problem.queries, int) and isinstance(problem.keys, int)
        longest = symbolic.most_keys
        target = task.target
        lanes = target.vector_lanes
        parallel = 1 if worth_parallel(task) else 0
        parallels = (0, 1) if task.threads > 1 else (0,)
        if isinstance(symbolic.queries, int) and problem.queries < lanes and longest is not None and longest <= _SCORES:
            rows = max(min(problem.group * problem.queries, 4, _SCORES // longest), 1)
            choices = (("lanes", (lanes,)), ("parallel", parallels), ("rows", tuple(sorted({1, min(2, rows), rows}))))
            return Space(self.name, choices, Config.of(self.name, {"lanes": lanes, "rows": rows, "parallel": parallel}))
        # Accumulators, a tile of queries and one broadcast key must fit the registers.
        most = max(problem.queries // lanes, 1)
        wide = 2 if most >= 2 else 1
        keys = 8 if target.vector_registers >= 32 else 6
        most_keys = problem.keys if isinstance(symbolic.keys, int) else 512
        block = most_keys if most_keys <= _ONE_BLOCK else 128
        parts = _parts_that_fit(problem, task, lanes * wide, block)
        spaces = (
            ("block", tuple(sorted({min(64, most_keys), min(128, most_keys), min(_ONE_BLOCK, most_keys)}))),
            ("keys", (4, 6, 8, 12)),
            ("lanes", (lanes,)),
            ("parallel", parallels),
            ("parts", parts),
            ("queries", tuple(range(1, min(most, 4) + 1))),
        )
        default = {"block": block, "keys": keys, "lanes": lanes, "parallel": parallel, "parts": parts[-1], "queries": wide}

        def allows(knobs: Mapping[str, int]) -> bool:
            return knobs["keys"] * knobs["queries"] + knobs["queries"] + 1 <= target.vector_registers

        return Space(self.name, spaces, Config.of(self.name, default), allows)

    def cut_cycles(self, task: Task, configs: Sequence[Config]) -> Sequence[float] | None:
        """What cutting the work by ``configs`` costs, in cycles that mean nothing beside those of other templates; None for few queries."""
        if any(name == "rows" for config in configs for name, _ in config.knobs):
            return None
        task = task.representative
        cost = AttentionCost(_problem(task.graph, None), task.target, task.threads, VALUE_VECTORS, _value_rows(task))
        return [cost.cycles(config) for config in configs]

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        kernel = Kernel(task.graph)
        problem = _problem(task.graph, kernel)
        parallel = runs_parallel(task, config)
        if any(name == "rows" for name, _ in config.knobs):
            lanes = largest_power_of_two(min(config["lanes"], problem.width & -problem.width))
            RowAttention(problem, lanes, config["rows"]).emit(parallel)
        else:
            tiles = Tiles(config["lanes"], config["queries"], config["parts"], config["keys"], _value_rows(task), config["block"])
            BlockedAttention(problem, tiles).emit(parallel)
        return LoweredKernel(kernel.finish())


def _value_rows(task: Task) -> int:
    """Queries in a register tile of the result: their accumulators, the values and one broadcast weight must fit the registers."""
    return min(8, (task.target.vector_registers - VALUE_VECTORS - 1) // VALUE_VECTORS)


def _parts_that_fit(problem: AttentionProblem, task: Task, rows: int, block: int) -> tuple[int, ...]:
    """How many times ``rows`` queries may meet a block of keys together: their buffers fit the stack, and all threads have work."""
    heads = int(problem.batch) * problem.heads
    if task.target.vector_lanes == 1:
        return (1,)

    def fits(parts: int) -> bool:
        size = 4 * parts * rows * (problem.width + problem.value_width + block)
        tasks = heads * -(-int(problem.queries) // (parts * rows))
        return size <= _STACK and tasks >= _TASKS * task.threads

    return (1, *(parts for parts in (2, 4) if fits(parts)))


def _reads(value: Value, ops: Collection[str]) -> bool:
    """Whether ``value`` comes from inputs of the region by ``ops`` only."""
    if value.node is None or (value.op in ("full", "constant") and value.tensor.size == 1):
        return True
    return value.op in ops and all(_reads(operand, ops) for operand in value.node.inputs)


def _problem(graph: Graph, kernel: Kernel | None) -> AttentionProblem:
    region = AnchoredRegion.find(graph, ("attention",), any_dtype=True, symbolic=True)
    assert region is not None
    return AttentionProblem(region, kernel)
