"""Records: what one measurement of a kernel is remembered by."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .space import Config


@dataclass(frozen=True)
class Record:
    """One measurement. ``times`` are seconds per call, one per repetition; ``versions`` the software that produced the code.

    Times of one task on one target are comparable, and scaled for that: a batch's to how fast the machine was when the task was measured
    first (``autotune/drift.py``), those from finals in a network to the best time of the kernel by itself (``tuning_finals.py``).
    A record without times stands for a config that failed to build, run or verify; ``error`` then says why.
    """

    task: str
    target: str
    config: Config
    times: tuple[float, ...]
    versions: str
    timestamp: float
    error: str = ""

    @property
    def median(self) -> float:
        """Median seconds per call; infinity for a failed config."""
        return statistics.median(self.times) if self.times else float("inf")
