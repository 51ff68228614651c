"""Attention on a GPU without a stored score matrix (after FlashAttention, Dao et al. 2022): a block for each tile of queries.

A block goes through the keys tile by tile. Scores of a tile are computed from shared memory, softmax is carried along (a running
maximum and sum), and each thread keeps some columns of one query's result in registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tvm import tirx

from ...ir import DType, Graph
from ..emit import UNROLLED, Expr, index, unflatten
from ..emit.math import exp_nonpositive, f32, select
from ..space import Config, Space
from ..task import Task
from ..template import LoweredKernel, Template
from ..templates.attention_problem import LOWEST, AttentionProblem, safe_inverse, safe_maximum
from ..templates.region import AnchoredRegion
from .kernel import SHARED_BYTES, GpuKernel


class GpuAttention(Template):
    """One ``attention`` with whatever is fused before its operands, its result passed to an elementwise epilogue.

    Knobs: ``queries`` and ``keys`` of a tile, ``team``: how many threads share a query.
    """

    name: ClassVar[str] = "gpu_attention"

    def takes(self, graph: Graph) -> bool:
        region = AnchoredRegion.find(graph, ("attention",), any_dtype=True)
        if region is None:
            return False
        q, k, v, *_ = region.anchor.inputs
        if any(value.tensor.dtype is not DType.FLOAT32 for value in (q, k, v, region.anchor.output)):
            return False
        return bool(self._points(AttentionProblem(region, None)))

    def space(self, task: Task) -> Space:
        problem = AttentionProblem(self._region(task.graph), None)
        points = self._points(problem)
        # Whole tiles of queries, then many keys at once, then small teams: fewer of their threads repeat the softmax.
        wanted = min(32, max(8, problem.queries))
        points.sort(key=lambda point: (abs(point["queries"] - wanted), -point["keys"], abs(point["queries"] * point["team"] - 128)))
        chosen = {tuple(sorted(point.items())) for point in points}
        choices = {name: tuple(sorted({point[name] for point in points})) for name in ("keys", "queries", "team")}
        return Space(
            self.name, tuple(choices.items()), Config.of(self.name, points[0]), lambda knobs: tuple(sorted(knobs.items())) in chosen
        )

    @staticmethod
    def _points(problem: AttentionProblem) -> list[dict[str, int]]:
        found = []
        for queries in (4, 8, 16, 32, 64):
            for keys in (16, 32, 64):
                for team in (4, 8, 16):
                    floats = queries * (problem.width + 1 + keys + 1) + keys * (problem.width + 1 + problem.value_width)
                    registers = -(-problem.value_width // team) + keys // team
                    if 4 * floats <= SHARED_BYTES and 32 <= queries * team <= 512 and registers <= 96 and keys % team == 0:
                        found.append({"queries": queries, "keys": keys, "team": team})
        return found

    def lower(self, task: Task, config: Config) -> LoweredKernel:
        return _Lowering(self._region(task.graph), dict(config.knobs)).lower()

    @staticmethod
    def _region(graph: Graph) -> AnchoredRegion:
        region = AnchoredRegion.find(graph, ("attention",), any_dtype=True)
        assert region is not None
        return region


class _Lowering:
    """One kernel in the making."""

    def __init__(self, region: AnchoredRegion, knobs: Mapping[str, int]) -> None:
        self.queries, self.keys, self.team = knobs["queries"], knobs["keys"], knobs["team"]
        extents = AttentionProblem(region, None)
        self.tiles = -(-extents.queries // self.queries)
        self.threads = self.queries * self.team
        self.kernel = GpuKernel(region.graph, blocks=extents.batch * extents.heads * self.tiles, threads=self.threads)
        self.emitter = self.kernel.emitter
        self.problem = AttentionProblem(region, self.kernel)
        self.columns = -(-extents.value_width // self.team)
        """Columns of the result that a thread keeps, ``team`` apart."""

    def lower(self) -> LoweredKernel:
        emitter, kernel, problem = self.emitter, self.kernel, self.problem
        width, value_width = problem.width, problem.value_width
        batch, head, tile = (emitter.bind(value) for value in unflatten(emitter, (problem.batch, problem.heads, self.tiles), kernel.block))
        self.batch, self.head = batch, head
        self.key_head = emitter.bind(emitter.simplify(head // problem.group))
        start = emitter.bind(tile * self.queries, "start")
        self.own_query = emitter.bind(emitter.simplify(kernel.thread // self.team), "own_query")
        self.member = emitter.bind(emitter.simplify(kernel.thread % self.team), "member")
        row = self._limited(start + self.own_query, problem.queries)

        q = kernel.shared(self.queries * (width + 1), "float32", "q")
        k = kernel.shared(self.keys * (width + 1), "float32", "k")
        v = kernel.shared(self.keys * value_width, "float32", "v")
        scores = kernel.shared(self.queries * (self.keys + 1), "float32", "scores")
        result = emitter.allocate(self.columns, "float32", "result")
        highest = emitter.allocate(1, "float32", "highest")
        total = emitter.allocate(1, "float32", "total")
        emitter.store(highest, LOWEST, 0)
        emitter.store(total, f32(0.0), 0)
        with emitter.loop(self.columns, UNROLLED) as column:
            emitter.store(result, f32(0.0), column)

        def bring_query(place: Expr, column: Expr) -> None:
            query = self._limited(start + place, problem.queries)
            emitter.store(q, problem.query(batch, head, query, column) * f32(problem.scale), place * (width + 1) + column)

        self._shared_rows(self.queries, width, bring_query)
        steps: Any = -(-problem.keys // self.keys)
        if problem.causal:
            # The last query of the tile meets no key beyond its own number.
            steps = emitter.bind(tirx.Min(index(steps), (start + (self.queries - 1)) // self.keys + 1), "steps")
        with emitter.loop(steps, name="step") as step:
            first = emitter.bind(step * self.keys, "first")
            self._bring_keys(k, v, first)
            kernel.barrier()
            self._score(q, k, scores, row, first)
            kernel.barrier()
            self._accumulate(scores, v, result, highest, total)
            kernel.barrier()
        inverse = safe_inverse(emitter, emitter.load(total, 0))
        with emitter.when(start + self.own_query < problem.queries), emitter.loop(self.columns, UNROLLED) as column:
            place = emitter.bind(column * self.team + self.member, "column")
            with emitter.when(place < value_width):
                at = kernel.bounded(place, value_width, "column")
                problem.store(batch, head, row, at, emitter.load(result, column) * inverse)
        return kernel.lowered()

    def _limited(self, position: Expr, extent: int) -> Expr:
        """``position``, or the last that exists."""
        return self.kernel.bounded(tirx.Min(position, index(extent - 1)), extent)

    def _shared_rows(self, rows: int, width: int, body: Any) -> None:
        """``body(row, column)`` for all elements of ``rows`` rows, shared among the threads."""
        emitter = self.emitter
        count = rows * width
        with emitter.loop(-(-count // self.threads), name="part") as part:
            place = part * self.threads + self.kernel.thread
            with emitter.when(place < count) if count % self.threads else emitter.scope():
                item = self.kernel.bounded(place, count, "item")
                body(emitter.bind(emitter.simplify(item // width)), emitter.bind(emitter.simplify(item % width)))

    def _bring_keys(self, k: Any, v: Any, first: Expr) -> None:
        emitter, problem = self.emitter, self.problem

        def bring_key(place: Expr, column: Expr) -> None:
            key = self._limited(first + place, problem.keys)
            emitter.store(k, problem.key(self.batch, self.key_head, key, column), place * (problem.width + 1) + column)

        def bring_value(place: Expr, column: Expr) -> None:
            key = self._limited(first + place, problem.keys)
            emitter.store(v, problem.value(self.batch, self.key_head, key, column), place * problem.value_width + column)

        self._shared_rows(self.keys, problem.width, bring_key)
        self._shared_rows(self.keys, problem.value_width, bring_value)

    def _score(self, q: Any, k: Any, scores: Any, row: Expr, first: Expr) -> None:
        """The scores of this thread's query and its share of the keys."""
        emitter, problem = self.emitter, self.problem
        width = problem.width
        each = self.keys // self.team
        sums = emitter.allocate(each, "float32", "sums")
        with emitter.loop(each, UNROLLED) as place:
            emitter.store(sums, f32(0.0), place)
        with emitter.loop(width, name="column") as column:
            query = emitter.bind(emitter.load(q, self.own_query * (width + 1) + column))
            with emitter.loop(each, UNROLLED) as place:
                key = emitter.load(k, (place * self.team + self.member) * (width + 1) + column)
                emitter.store(sums, emitter.load(sums, place) + query * key, place)
        with emitter.loop(each, UNROLLED) as place:
            own = emitter.bind(place * self.team + self.member, "own")
            key = emitter.bind(first + own, "key")
            score = emitter.bind(emitter.load(sums, place))
            if problem.mask is not None:
                score = emitter.bind(score + problem.bias(self.batch, self.head, row, self._limited(key, problem.keys)))
            meets = None
            if problem.keys % self.keys:
                meets = key < problem.keys
            if problem.causal:
                meets = key <= row if meets is None else tirx.And(meets, key <= row)
            emitter.store(scores, score if meets is None else select(meets, score, LOWEST), self.own_query * (self.keys + 1) + own)

    def _accumulate(self, scores: Any, v: Any, result: Any, highest: Any, total: Any) -> None:
        """Takes one tile of scores into the running softmax and result; every thread of a query computes the same weights."""
        emitter, problem = self.emitter, self.problem
        bind = emitter.bind
        start = emitter.bind(self.own_query * (self.keys + 1), "scores_at")
        with emitter.scope():
            before = bind(emitter.load(highest, 0))
            with emitter.loop(self.keys, UNROLLED) as key:
                score = bind(emitter.load(scores, start + key))
                known = bind(emitter.load(highest, 0))
                emitter.store(highest, select(score > known, score, known), 0)
            safe = safe_maximum(emitter, bind(emitter.load(highest, 0)))
            shrink = exp_nonpositive(bind, bind(before - safe))
            emitter.store(total, emitter.load(total, 0) * shrink, 0)
            with emitter.loop(self.columns, UNROLLED) as column:
                emitter.store(result, emitter.load(result, column) * shrink, column)
            with emitter.loop(self.keys, name="key") as key:
                weight = exp_nonpositive(bind, bind(emitter.load(scores, start + key) - safe))
                emitter.store(total, emitter.load(total, 0) + weight, 0)
                with emitter.loop(self.columns, UNROLLED) as column:
                    place: Expr = column * self.team + self.member
                    if problem.value_width % self.team:
                        place = tirx.Min(place, index(problem.value_width - 1))
                    value = emitter.load(v, key * problem.value_width + place)
                    emitter.store(result, emitter.load(result, column) + weight * value, column)
