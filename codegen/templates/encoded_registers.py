"""Products of few rows with an encoded weight, whose codes become numbers in registers and never lie anywhere else.

Each thread takes some panels of columns. It reads the block of a panel from start to end for each register tile of rows; the products of a
group are summed up alone, and added to the sums of the tile times the scale of the group. A group starts from a sum of activations that
accounts for the constant zero point of all codes and for inverted bits.
"""

from __future__ import annotations

from ..emit import Emitter, Expr, index
from ..space import Config
from ..task import Task
from ..template import LoweredKernel
from ..weight_format import CHUNK, CodeKind
from ..weight_packing import Arrangement
from .arithmetic import Fp32
from .encoded_codes import arrangement_of
from .encoded_product import EncodedKernel, EncodedProduct, GroupNumbers
from .encoded_rows import RowPlan, StagedRows
from .register_tile import RegisterTile
from .tiling import EvenSplit, share, threads, useful_threads
from .vectors import Vectors, sum_of

_AHEAD = 4096
"""Words by which prefetches into the first-level cache are ahead: 16 KiB (measured)."""
_CHAINS = 8
"""Sums at once, at least, so that none waits for its predecessor."""


class RegisterLowering:
    """One kernel in the making; knobs ``rows`` and ``vectors``."""

    def __init__(self, task: Task, config: Config) -> None:
        problem = EncodedProduct.of(task)
        self.target = task.target
        self.plan = self._plan(problem, config["vectors"] * task.target.vector_lanes)
        self.frame = EncodedKernel(task, problem, config["vectors"], self._arrangement(problem), self.plan.size)
        self.emitter, self.vectors = self.frame.emitter, self.frame.vectors
        self.rows = StagedRows(self.frame.kernel, task.target, self.plan)
        self.groups = GroupNumbers(self.frame)
        self.split = EvenSplit(problem.rows, config["rows"])
        self.parallel = useful_threads(task.target, task.threads, problem.product.flops, problem.product.bytes_moved)

    def _plan(self, problem: EncodedProduct, panel: int) -> RowPlan:
        """What this kernel needs of the rows."""
        return RowPlan(problem.rows, problem.block(panel), digits=problem.format.kind is CodeKind.INTEGER)

    def _arrangement(self, problem: EncodedProduct) -> Arrangement:
        return arrangement_of(problem.format, self.target)

    def lower(self) -> LoweredKernel:
        emitter, frame = self.emitter, self.frame
        self.rows.stage(self.parallel, frame.block.depth, frame.activation)
        with threads(emitter, self.parallel) as thread, share(emitter, thread, self.parallel, frame.panels) as (low, high):
            self._open()
            with emitter.loop(emitter.simplify(high - low), name="panel", start=low) as number:
                start = emitter.bind(emitter.simplify(number * frame.block.words + frame.header), "block")
                for run in self.split.runs:
                    with self.split.loop(emitter, run) as row:
                        self._tile(number, start, row, run.size)
        return frame.finish()

    def _open(self) -> None:
        """What a thread holds throughout."""
        self.codes = self.frame.codes(digits=self.plan.digits)

    def _tile(self, number: Expr, start: Expr, row: Expr, rows: int) -> None:
        emitter, block = self.emitter, self.frame.block
        tile = RegisterTile(emitter, Fp32(self.frame.target), rows, self.frame.count)
        with emitter.loop(block.spans, name="span") as span:
            self._add(tile, self._products(start, row, rows, span), start, row, span)
        if block.format.group is None:
            self._scale(tile, start)
        self.frame.store(tile, row, number)

    def _products(self, start: Expr, row: Expr, rows: int, span: Expr) -> list[list[Expr]]:
        """The sums of the products of a span and what they start from, for each row a vector for each of the panel."""
        emitter, block = self.emitter, self.frame.block
        sums = self._opened_sums(rows, row, span)
        codes = emitter.bind(emitter.simplify(start + span * block.span_words), "codes")
        with emitter.loop(block.span, name="chunk") as chunk:
            words = emitter.bind(emitter.simplify(codes + chunk * block.chunk_words), "words")
            emitter.prefetch(self.frame.words, words + _AHEAD, block.chunk_words, level=1)
            self._chunk(sums, words, emitter.bind(emitter.simplify(span * block.span + chunk), "chunk"), row, rows)
        codes_size = block.span * block.chunk_words
        emitter.prefetch(self.frame.words, codes + (_AHEAD + codes_size), block.span_words - codes_size, level=1)
        return [[self._total(sums, step, vector, row, span) for vector in range(self.frame.count)] for step in range(rows)]

    def _total(self, sums: Sums, step: int, vector: int, row: Expr, span: Expr) -> Expr:
        return sum_of(self.vectors, [sums.load(part, step, vector) for part in range(sums.parts)])

    def _opened_sums(self, rows: int, row: Expr, span: Expr) -> Sums:
        """As many sums as keep the processor busy; the first of each column starts from what the plan says."""
        sums = Sums(self.emitter, self.vectors, -(-_CHAINS // (rows * self.frame.count)), rows, self.frame.count)
        for step in range(rows):
            begin = self.rows.start(row + step, span) if self.plan.starts is not None else None
            for vector in range(self.frame.count):
                for part in range(sums.parts):
                    sums.store(part, step, vector, self.vectors.constant(0.0) if begin is None or part else begin)
        return sums

    def _chunk(self, sums: Sums, words: Expr, chunk: Expr, row: Expr, rows: int) -> None:
        """Adds the products of a chunk, whose words begin with ``words``."""
        emitter, vectors = self.emitter, self.vectors
        places = [emitter.bind(emitter.simplify(self.rows.place(row + step, chunk * CHUNK)), "x_at") for step in range(rows)]
        self.codes.open(words)
        for position in range(CHUNK):
            numbers = self.codes.numbers(position)
            for step, place in enumerate(places):
                activation = self.rows.number(place, position)
                for vector, factor in enumerate(numbers):
                    part = position % sums.parts
                    sums.store(part, step, vector, vectors.fused(activation, factor, sums.load(part, step, vector)))

    def _add(self, tile: RegisterTile, products: list[list[Expr]], start: Expr, row: Expr, span: Expr) -> None:
        """Adds the sums of a span to the tile, times the scale of the group if it is one."""
        vectors = self.vectors
        is_group = self.frame.block.format.group is not None
        group = span if is_group else index(0)
        for vector in range(self.frame.count):
            scale = self.groups.scale(start, group, vector) if is_group else None
            zero = self.groups.zero(start, group, vector) if self.plan.sums else None
            for step, sums in enumerate(products):
                value = sums[vector]
                if zero is not None:
                    value = vectors.subtract(value, vectors.times(zero, self.rows.sum(row + step, span)))
                place = self._place(tile, step, vector)
                held = vectors.load(tile.accumulators, place)
                vectors.store(tile.accumulators, place, vectors.add(held, value) if scale is None else vectors.fused(value, scale, held))

    def _scale(self, tile: RegisterTile, start: Expr) -> None:
        """Applies the one scale of each column."""
        for vector in range(tile.vectors):
            scale = self.groups.scale(start, index(0), vector)
            for step in range(tile.rows):
                place = self._place(tile, step, vector)
                self.vectors.store(tile.accumulators, place, self.vectors.times(self.vectors.load(tile.accumulators, place), scale))

    def _place(self, tile: RegisterTile, step: int, vector: int) -> int:
        return (step * tile.vectors + vector) * self.frame.lanes


class Sums:
    """``parts`` x ``rows`` x ``count`` vectors of sums, in registers."""

    def __init__(self, emitter: Emitter, vectors: Vectors, parts: int, rows: int, count: int, dtype: str = "float32") -> None:
        self.parts = parts
        self._rows = rows
        self._count = count
        self._vectors = vectors
        self._buffer = emitter.allocate(parts * rows * count * vectors.lanes, dtype, "sums")

    def load(self, part: int, row: int, vector: int) -> Expr:
        return self._vectors.load(self._buffer, self._place(part, row, vector))

    def store(self, part: int, row: int, vector: int, value: Expr) -> None:
        self._vectors.store(self._buffer, self._place(part, row, vector), value)

    def _place(self, part: int, row: int, vector: int) -> int:
        return ((part * self._rows + row) * self._count + vector) * self._vectors.lanes
