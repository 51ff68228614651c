"""Kernels of encoded weights as schedules: which there are to choose from, and what each costs.

The costs of instructions are cycles for a vector, fitted to measurements of single kernels on one core of a Zen 3 whose weights lie in a
cache; ``benchmarks/encoded.py`` repeats the comparison of the ways to compute a product.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..target import Target
from ..task import Numerics, Task
from ..weight_format import CHUNK, CodeKind
from ..weight_packing import digits_per_word
from .encoded_codes import lookup_width
from .encoded_fixed import BYTES, can_multiply_bytes
from .encoded_product import EncodedProduct
from .tiling import EvenSplit, distinct_splits, fits_registers, panel_candidates, tile_cycles, useful_threads


class Algorithm(enum.IntEnum):
    """How codes meet activations; the value of the knob ``algorithm``."""

    REGISTERS = 0
    PANELS = 1
    LOOKUP = 2
    FIXED = 3


MOST_PLANES = 4
"""Bits of a code above which looking up takes longer by far."""
_MOST_ROWS = 8
"""Of a tile whose codes become numbers in registers."""
_PANEL_SHARE = 0.5
"""Of the second-level cache, for a block of decoded numbers."""

_DECODE = {CodeKind.INTEGER: 0.75, CodeKind.FLOAT: 1.9, CodeKind.INDEX: 1.9}
"""A vector of numbers from codes: integers as digits."""
_DECODE_PLAINLY = 0.65
"""What is added where numbers are the reference's, scaled and stored."""
_MULTIPLY_ADD = 0.15
_BROADCAST = 0.4
_SHIFT = 0.27
_LOOK_UP = 0.93
"""A permutation and an addition."""
_UNPACK = 0.13
"""A vector's share of taking 32 bytes of codes apart."""
_BYTE_PRODUCTS = 0.55
"""A vector's share of multiplying by three bytes and adding."""
_FOUR_BYTES = 0.1
"""Four activations in every lane."""
_JOIN = 4.0
"""The sums of three bytes and the scale of a group, for each row."""
_FINISH = 1.5
"""The scale of a group, for each row."""
_SPILL = 0.05
"""By how much each register beyond those there are slows a kernel down."""
_SPILL_DIGITS = 0.15
"""The same where codes are read as digits."""
_HELD_MASKS = 3
"""Of digits, at most; more are read from memory in passing."""
_STAGE = 0.5
"""An activation as a digit."""
_SPLIT = 0.6
"""An activation as three bytes."""
_TABULATE = 0.6
"""An activation's share of the tables."""
_HIDDEN = 0.6
"""Of arithmetic, what memory does not hide, measured for codes of 4 bits that lie in the last-level cache and beyond."""


@dataclass(frozen=True)
class Geometry:
    """A product on a target with ``parallel`` threads."""

    problem: EncodedProduct
    target: Target
    parallel: int
    strict: bool

    @staticmethod
    def of(task: Task) -> Geometry:
        problem = EncodedProduct.of(task)
        product = problem.product
        parallel = useful_threads(task.target, task.threads, product.flops, product.bytes_moved)
        return Geometry(problem, task.target, parallel, task.numerics is Numerics.STRICT)

    @property
    def can_look_up(self) -> bool:
        """Whether codes are sums of few bits, and the target looks up."""
        form = self.problem.format
        return form.kind is CodeKind.INTEGER and form.bits <= MOST_PLANES and lookup_width(self.target) > 0

    def _can(self, algorithm: Algorithm) -> bool:
        """Whether codes and target are such as this algorithm of few rows takes."""
        if algorithm is Algorithm.FIXED:
            return can_multiply_bytes(self.target, self.problem.block(self.target.vector_lanes))
        return algorithm is Algorithm.REGISTERS or self.can_look_up

    def points(self, algorithm: Algorithm) -> Iterator[dict[str, int]]:
        """The knobs of an algorithm's kernels.

        Digits and sums of subsets turn an infinite activation into NaN: with strict numerics there are panels only.
        """
        lanes, columns, rows = self.target.vector_lanes, self.problem.product.columns, self.problem.rows
        if algorithm is Algorithm.PANELS:
            for tile_rows in distinct_splits(rows, max(1, self.target.vector_registers // 2)):
                for vectors in panel_candidates(self.target, columns, rows):
                    if fits_registers(self.target, tile_rows, vectors):
                        for depth in self._block_depths(vectors * lanes):
                            yield self._point(algorithm, depth, tile_rows, vectors)
        elif not self.strict and self._can(algorithm):
            whole = self.problem.block(lanes).chunks * CHUNK
            for tile_rows in distinct_splits(rows, _MOST_ROWS):
                for vectors in (1, 2, 4):
                    if vectors <= max(-(-columns // lanes), 1) and self._registers(algorithm, tile_rows, vectors) <= 2 * self._available:
                        yield self._point(algorithm, whole, tile_rows, vectors)

    @staticmethod
    def _point(algorithm: Algorithm, depth: int, rows: int, vectors: int) -> dict[str, int]:
        return {"algorithm": int(algorithm), "block_depth": depth, "rows": rows, "vectors": vectors}

    def _block_depths(self, panel: int) -> tuple[int, ...]:
        """The whole depth, padded, or as many groups as a share of the second-level cache holds, if it does not hold them all."""
        block = self.problem.block(panel)
        most = int(_PANEL_SHARE * self.target.l2_bytes) // (4 * panel * CHUNK * block.span)
        if most >= block.spans or not self.target.l2_bytes:
            return (block.chunks * CHUNK,)
        return (EvenSplit(block.spans, max(most, 1)).largest * block.span * CHUNK,)

    @property
    def _available(self) -> int:
        return self.target.vector_registers

    def _registers(self, algorithm: Algorithm, rows: int, vectors: int) -> int:
        """Vector registers that the sums and the words of a tile take, and what is between them."""
        if algorithm is Algorithm.LOOKUP:
            return self.problem.format.bits * vectors * (rows + 1) + 2
        if algorithm is Algorithm.FIXED:
            return BYTES * rows * vectors + vectors * (8 // self.problem.format.bits - 2) + 2
        masks = min(digits_per_word(self.problem.format.bits) - 1, _HELD_MASKS) if self._reads_digits else 1
        return rows * vectors * max(-(-8 // (rows * vectors)), 1) + vectors + masks + 2

    @property
    def _reads_digits(self) -> bool:
        return self.problem.format.kind is CodeKind.INTEGER

    def cycles(self, knobs: Mapping[str, int]) -> float:
        """Estimated cycles of the slowest thread."""
        algorithm = Algorithm(knobs["algorithm"])
        vectors = knobs["vectors"]
        block = self.problem.block(vectors * self.target.vector_lanes)
        panels = -(-self.problem.product.columns // block.panel)
        busiest = -(-panels // self.parallel)
        split = EvenSplit(self.problem.rows, knobs["rows"])
        if algorithm is Algorithm.PANELS:
            arithmetic = self._decode_cycles(vectors) + sum(run.count * self._tile_cycles(run.size, knobs, split) for run in split.runs)
        else:
            arithmetic = sum(run.count * self._row_cycles(algorithm, run.size, vectors) for run in split.runs)
        arithmetic *= busiest
        bandwidth = self.target.memory_bandwidth / self.parallel / self.target.frequency
        memory = busiest * block.words * 4 / bandwidth
        return max(arithmetic, memory) + _HIDDEN * arithmetic + self._stage_cycles(algorithm)

    def _steps(self) -> int:
        """Vectors of weights in a column of vectors."""
        return self.problem.block(self.target.vector_lanes).chunks * CHUNK

    def _row_cycles(self, algorithm: Algorithm, rows: int, vectors: int) -> float:
        """A tile of few rows against a panel."""
        form, depth = self.problem.format, self._steps()
        if algorithm is Algorithm.LOOKUP:
            lookups = math.ceil(CHUNK / (lookup_width(self.target).bit_length() - 1)) / CHUNK
            step = vectors * form.bits * lookups * (_SHIFT + _LOOK_UP * rows)
        elif algorithm is Algorithm.FIXED:
            step = vectors * (_UNPACK + _BYTE_PRODUCTS * rows) + _FOUR_BYTES * BYTES / 4 * rows
        else:
            step = vectors * (_DECODE[form.kind] + _MULTIPLY_ADD * rows) + _BROADCAST * rows
        digits = algorithm is Algorithm.REGISTERS and self._reads_digits
        spill, spare = (_SPILL_DIGITS, 1) if digits else (_SPILL, 2)
        beyond = max(self._registers(algorithm, rows, vectors) - (self._available - spare), 0)
        each = _JOIN if algorithm is Algorithm.FIXED else _FINISH
        finish = each * rows * vectors * self.problem.block(vectors * self.target.vector_lanes).spans
        return depth * step * (1 + spill * beyond) + finish

    def _decode_cycles(self, vectors: int) -> float:
        return self._steps() * vectors * (_DECODE[self.problem.format.kind] + _DECODE_PLAINLY)

    def _tile_cycles(self, rows: int, knobs: Mapping[str, int], split: EvenSplit) -> float:
        depth = self._steps()
        blocks = -(-depth // knobs["block_depth"])
        return blocks * tile_cycles(self.target, rows, knobs["vectors"], depth / blocks, split.tiles + 1)

    def _stage_cycles(self, algorithm: Algorithm) -> float:
        """Of the activations, which every thread waits for."""
        if algorithm is Algorithm.PANELS:
            return 0.0
        size = self.problem.rows * self._steps()
        share = self.parallel if self.problem.rows > 1 else 1
        tables = _TABULATE * self.target.vector_lanes / 8 if algorithm is Algorithm.LOOKUP else 0.0
        fixed = _SPLIT if algorithm is Algorithm.FIXED else 0.0
        return size * (_STAGE + tables + fixed) / share
