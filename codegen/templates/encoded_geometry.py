"""Kernels of encoded weights as schedules: which there are to choose from, and what each costs.

``benchmarks/encoded.py`` repeats the comparison of the ways to compute a product.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..instruction_sets import multiplies_bytes
from ..target import Target
from ..task import Numerics, Task
from ..weight_format import CHUNK, CodeKind
from ..weight_packing import digits_per_word
from .encoded_codes import lookup_width
from .encoded_costs import Costs, costs_of
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

_BUSY = 4
"""Sums of each byte that keep the multipliers busy."""
_SHORT_SPAN = 2
"""Chunks of a span that is summed up so often that the tile's sums had better stay in registers."""
_CHUNK_BYTES = 384
"""That a chunk of a panel may have without being slower to come from memory."""
_HELD_MASKS = 3
"""Of digits, at most; more are read from memory in passing."""


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
        bits = self.problem.format.bits
        if algorithm is Algorithm.LOOKUP:
            return bits * vectors * (rows + 1) + 2
        if algorithm is Algorithm.FIXED and multiplies_bytes(self.target):
            # In short groups the tile's own sums are held as well, and scales.
            held = int(self.problem.block(self.target.vector_lanes).span <= _SHORT_SPAN)
            return vectors * ((BYTES + held) * rows + (1 if bits == 8 else 2) + held) + 2
        if algorithm is Algorithm.FIXED:
            return vectors * (BYTES * rows + 8 // bits - 2) + 2
        masks = min(digits_per_word(bits) - 1, _HELD_MASKS) if self._reads_digits else 1
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
            tiles = sum(run.count * self._tile_cycles(run.size, knobs, split) for run in split.runs)
            arithmetic = self._decode_cycles(vectors) + self._costs.tiles * tiles
        else:
            arithmetic = sum(run.count * self._row_cycles(algorithm, run.size, vectors) for run in split.runs)
            arithmetic += (split.tiles - 1) * self._steps() * vectors * self._costs.reread * self.problem.format.bits / 8
        arithmetic *= busiest
        bandwidth = self.target.memory_bandwidth / self.parallel / self.target.frequency
        memory = busiest * block.words * 4 / bandwidth
        if algorithm is not Algorithm.PANELS:
            memory *= 1 + self._costs.crowding * max(math.log2(4 * block.chunk_words / _CHUNK_BYTES), 0)
        digits = algorithm is Algorithm.REGISTERS and self._reads_digits and self.problem.format.bits < 8
        overlap = self._costs.overlap_digits if digits and arithmetic < memory else self._costs.overlap
        return max(arithmetic, memory) + overlap * min(arithmetic, memory) + self._stage_cycles(algorithm)

    @cached_property
    def _costs(self) -> Costs:
        return costs_of(self.target)

    def _steps(self) -> int:
        """Vectors of weights in a column of vectors."""
        return self.problem.block(self.target.vector_lanes).chunks * CHUNK

    def _row_cycles(self, algorithm: Algorithm, rows: int, vectors: int) -> float:
        """A tile of few rows against a panel."""
        form, depth, costs = self.problem.format, self._steps(), self._costs
        if algorithm is Algorithm.LOOKUP:
            lookups = math.ceil(CHUNK / (lookup_width(self.target).bit_length() - 1)) / CHUNK
            step = vectors * form.bits * lookups * (costs.shift + costs.look_up * rows)
        elif algorithm is Algorithm.FIXED:
            step = vectors * (costs.unpack + costs.byte_products * rows) + costs.four_bytes * BYTES / 4 * rows
            step += costs.latency * max(1 - rows * vectors / _BUSY, 0)
        else:
            step = vectors * (costs.decode[form.kind] + costs.multiply_add * rows) + costs.broadcast * rows
        digits = algorithm is Algorithm.REGISTERS and self._reads_digits
        spill, spare = (costs.spill_digits, 1) if digits else (costs.spill, 2)
        beyond = max(self._registers(algorithm, rows, vectors) - (self._available - spare), 0)
        each = costs.join if algorithm is Algorithm.FIXED else costs.finish
        finish = each * rows * vectors * self.problem.block(vectors * self.target.vector_lanes).spans
        return depth * step * (1 + spill * beyond) + finish

    def _decode_cycles(self, vectors: int) -> float:
        return self._steps() * vectors * (self._costs.decode[self.problem.format.kind] + self._costs.store_decoded)

    def _tile_cycles(self, rows: int, knobs: Mapping[str, int], split: EvenSplit) -> float:
        depth = self._steps()
        blocks = -(-depth // knobs["block_depth"])
        return blocks * tile_cycles(self.target, rows, knobs["vectors"], depth / blocks, split.tiles + 1)

    def _stage_cycles(self, algorithm: Algorithm) -> float:
        """Of the activations, which every thread waits for."""
        if algorithm is Algorithm.PANELS:
            return 0.0
        costs = self._costs
        each = {Algorithm.LOOKUP: costs.stage_table, Algorithm.FIXED: costs.stage_bytes}.get(algorithm, costs.stage_digits)
        return self.problem.rows * self._steps() * each / (self.parallel if self.problem.rows > 1 else 1)
