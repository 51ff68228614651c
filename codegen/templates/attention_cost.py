"""What attention over blocks of queries costs, by the target's facts: a guess that ranks ways to cut it, not a time."""

from __future__ import annotations

from dataclasses import dataclass

from ..space import Config
from ..target import Target
from .attention_problem import AttentionProblem
from .tiling import EvenSplit

_LATENCY = 4
"""Cycles after which a sum can be added to again."""
_LOADS = 2
"""Per cycle."""
_POWER = 8.0
"""Cycles that a vector of powers takes, with what makes weights of scores and sums them."""
_STORES = 2.0
"""Cycles in which a vector of scores is masked, stored, and compared with the highest."""
_TRANSPOSED = 2.0
"""Cycles in which a vector is transposed, of queries or of a mask."""
_TILE = 12.0
"""Cycles in which a register tile begins and ends."""
_BLOCK = 100.0
"""Cycles that a block of queries takes beside its parts."""
_FAR = 2.0
"""Cycles for a vector of scores from beyond the first-level cache, each time that it is passed over."""
_PASSES = 3
_L1_FILLED = 0.7


@dataclass(frozen=True)
class AttentionCost:
    """Cycles of the busiest thread. ``value_vectors`` and ``value_rows`` make the register tile of the result."""

    problem: AttentionProblem
    target: Target
    threads: int
    value_vectors: int
    value_rows: int

    def cycles(self, config: Config) -> float:
        """Of blocks of queries cut by ``config``; extents are static."""
        problem, lanes = self.problem, config["lanes"]
        queries, keys = int(problem.queries), int(problem.keys)
        rows = config["queries"] * lanes
        parts = -(-queries // rows)
        block = -(-min(config["block"], keys) // config["keys"]) * config["keys"]
        share = self._share_of_keys(queries, keys, block)
        seen = share * keys
        far = 4 * config["parts"] * block * rows > _L1_FILLED * self.target.l1_bytes
        vectors = config["queries"]
        part = self._scores(config, seen) + self._values(rows, lanes, seen)
        part += seen * vectors * (_POWER + _STORES + (_PASSES * _FAR if far else 0.0))
        part += vectors * problem.width * _TRANSPOSED + rows * problem.value_width / lanes * _STORES
        if problem.mask_varies_by_query:
            part += seen * vectors * _TRANSPOSED
        if block < keys:
            part += seen / block * rows * problem.value_width / lanes * _STORES
        heads = int(problem.batch) * problem.heads
        blocks = -(-parts // config["parts"])
        threads = self.threads if config["parallel"] else 1
        # Blocks of queries are dealt out whole; the last of a head has what parts are left.
        busiest = -(-heads * blocks // threads) / (heads * blocks)
        return busiest * heads * (parts * part + blocks * _BLOCK)

    def _share_of_keys(self, queries: int, keys: int, block: int) -> float:
        """The part of the keys that queries look at on average, as far as blocks can leave them out."""
        if not self.problem.causal or queries != keys:
            return 1.0
        return 0.5 * (1.0 + min(block, keys) / (2 * keys))

    def _scores(self, config: Config, seen: float) -> float:
        """The products of a part's queries and the keys that it looks at."""
        vectors, keys = config["queries"], config["keys"]
        step = max(vectors * keys / self.target.fma_units, (vectors + keys) / _LOADS, _LATENCY)
        return -(-seen // keys) * (self.problem.width * step + _TILE)

    def _values(self, rows: int, lanes: int, seen: float) -> float:
        """The weighted sums of values of a part."""
        panels = -(-self.problem.value_width // (self.value_vectors * lanes))
        total = 0.0
        for run in EvenSplit(rows, self.value_rows).runs:
            step = max(run.size * self.value_vectors / self.target.fma_units, (run.size + self.value_vectors) / _LOADS, _LATENCY)
            total += run.count * panels * (seen * step + _TILE)
        return total
