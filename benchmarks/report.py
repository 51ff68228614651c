"""What a benchmark found: times, errors, who was fastest, and how close to what the machine can do. Plain data as JSON and back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import MeasurementError
from .machine import Machine, Peaks
from .process import PATIENCE
from .systems import BASELINE, OURS, SYSTEMS, Mlc
from .work import Work

PEER_ERROR = 1e-3
"""Error up to which a peer counts. How exact it is in fp32 is its own affair: more means lower precision, or another result."""


@dataclass(frozen=True)
class Plan:
    """``seconds`` of calls per system and round; ``patience`` are the seconds after which a system that does not answer is given up.

    ``precision`` is mlc's, with its ``tolerance`` and the ``calibration`` file of the only model, and so is the ``database``'s path: the
    other systems compute in float32, untuned.
    """

    models: tuple[str, ...]
    systems: tuple[str, ...] = (OURS, BASELINE)
    threads: int = 2
    rounds: int = 5
    seconds: float = 0.5
    patience: float = PATIENCE
    precision: str = "fp32"
    tolerance: float | None = None
    calibration: str | None = None
    database: str | None = None

    def __post_init__(self) -> None:
        if self.calibration is not None and len(self.models) != 1:
            raise MeasurementError(f"calibration '{self.calibration}' holds samples of one model's inputs; name that model alone")
        unknown = [name for name in self.systems if name not in SYSTEMS]
        if unknown:
            raise MeasurementError(f"no system is called {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
        if BASELINE not in self.systems:
            object.__setattr__(self, "systems", (*self.systems, BASELINE))

    @property
    def ours(self) -> Mlc:
        """How mlc is to compile."""
        return Mlc(self.precision, self.tolerance, self.calibration, self.database)

    @property
    def steps_each(self) -> int:
        """How often ``suite.run`` reports progress for each model."""
        return len(self.systems) * (1 + self.rounds) + 1


@dataclass(frozen=True)
class Timing:
    """A system on a model: median and least seconds per call of each round, and the tenth and ninetieth percentile of all calls.

    ``prepare_s`` includes the compilation; ``error`` is against float64; ``failed`` says why there are no times; ``moved`` are the bytes
    that its kernels read and write in a call, 0 if unknown.
    """

    system: str
    medians: tuple[float, ...] = ()
    minima: tuple[float, ...] = ()
    spread: tuple[float, float] = (math.nan, math.nan)
    prepare_s: float = 0.0
    error: float = 0.0
    failed: str = ""
    moved: int = 0

    @staticmethod
    def of(system: str, rounds: Sequence[Sequence[float]], prepare_s: float = 0.0, error: float = 0.0, moved: int = 0) -> Timing:
        """From the seconds of every call of every round."""
        low, high = np.percentile([time for times in rounds for time in times], [10, 90])
        medians = tuple(statistics.median(times) for times in rounds)
        return Timing(system, medians, tuple(min(times) for times in rounds), (float(low), float(high)), prepare_s, error, moved=moved)

    @property
    def median(self) -> float:
        """Median over the rounds of the median seconds per call."""
        return statistics.median(self.medians) if self.medians else math.nan

    @property
    def best(self) -> float:
        """The least seconds of any call."""
        return min(self.minima, default=math.nan)


@dataclass(frozen=True)
class Comparison:
    """All systems on one model. ``allowed`` is the error against float64 that mlc and the baseline may make.

    ``peaks`` are those measured at the start of each round: what else runs on the machine lowers them as it does the systems' speed.
    """

    model: str
    work: Work
    allowed: float
    timings: Mapping[str, Timing] = field(default_factory=dict)
    peaks: tuple[Peaks, ...] = ()

    def ratio(self, system: str, other: str) -> float:
        """How many times faster ``system`` is than ``other``: the median of the rounds' ratios; not a number when either failed."""
        ratios = [b / a for a, b in zip(self.timings[system].medians, self.timings[other].medians, strict=False)]
        return statistics.median(ratios) if ratios else math.nan

    def speedup(self, system: str) -> float:
        """How many times faster than the baseline."""
        return self.ratio(system, BASELINE)

    def sound(self, system: str) -> bool:
        """Whether the system ran and its outputs are right."""
        timing = self.timings[system]
        allowed = self.allowed if system in (OURS, BASELINE) else max(self.allowed, PEER_ERROR)
        return not timing.failed and timing.error <= allowed

    @property
    def best_peer(self) -> str | None:
        """The fastest of the systems other than mlc, in the median; none if none is sound."""
        peers = [system for system in self.timings if system != OURS and self.sound(system)]
        return min(peers, key=lambda system: self.timings[system].median, default=None)

    @property
    def against_best(self) -> float:
        """How many times faster mlc is than the best peer; not a number when mlc is not sound, or no peer is."""
        peer = self.best_peer
        return self.ratio(OURS, peer) if peer is not None and OURS in self.timings and self.sound(OURS) else math.nan

    @property
    def against_best_least(self) -> float:
        """The least time of the peer whose least time is smallest, over mlc's: what is left of the ratio without other load."""
        peers = [timing.best for system, timing in self.timings.items() if system != OURS and self.sound(system)]
        return min(peers) / self.timings[OURS].best if peers and OURS in self.timings and self.sound(OURS) else math.nan


@dataclass(frozen=True)
class Report:
    machine: Machine
    plan: Plan
    versions: Mapping[str, str]
    comparisons: tuple[Comparison, ...]

    def geometric_mean(self, system: str) -> float:
        """Of the speed-ups over the baseline on all models that ran."""
        return _geometric_mean(c.speedup(system) for c in self.comparisons)

    @property
    def against_best(self) -> float:
        """Geometric mean of mlc's speed-ups over the best peer of each model."""
        return _geometric_mean(c.against_best for c in self.comparisons)

    @property
    def against_best_least(self) -> float:
        """The same of the ratios of least times."""
        return _geometric_mean(c.against_best_least for c in self.comparisons)

    def bound(self, comparison: Comparison) -> float:
        """The least seconds that the measured peaks allow for one call, by direct arithmetic (:mod:`.work`)."""
        return comparison.work.bound(self.machine.flops, self.machine.bandwidth, self.machine.cache)

    def fraction(self, comparison: Comparison, system: str) -> float:
        """The median over the rounds of the bound by the round's peaks over the round's median: 1 is the roof."""
        found = [
            comparison.work.bound(peaks.flops, peaks.bandwidth, self.machine.cache) / median
            for peaks, median in zip(comparison.peaks, comparison.timings[system].medians, strict=False)
        ]
        return statistics.median(found) if found else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain data; what is no finite number is null."""
        plain: dict[str, Any] = _finite(
            {
                "machine": asdict(self.machine),
                "versions": dict(self.versions),
                "plan": asdict(self.plan),
                "geometric_mean": {name: self.geometric_mean(name) for name in self.plan.systems},
                "against_best_peer": self.against_best,
                "against_best_peer_least": self.against_best_least,
                "models": [self._model(comparison) for comparison in self.comparisons],
            }
        )
        return plain

    def _model(self, comparison: Comparison) -> dict[str, Any]:
        work, peer = comparison.work, comparison.best_peer
        return {
            "model": comparison.model,
            "flops": work.flops,
            "weight_bytes": work.weights,
            "input_output_bytes": work.ends,
            "bound_s": self.bound(comparison),
            "round_peaks": [asdict(peaks) for peaks in comparison.peaks],
            "allowed_error": comparison.allowed,
            "best_peer": peer,
            "against_best_peer": comparison.against_best,
            "against_best_peer_least": comparison.against_best_least,
            "systems": {
                name: {
                    "median_s": timing.median,
                    "best_s": timing.best,
                    "spread_s": timing.spread,
                    "round_medians_s": timing.medians,
                    "round_minima_s": timing.minima,
                    "prepare_s": timing.prepare_s,
                    "error": timing.error,
                    "sound": comparison.sound(name),
                    "speedup": comparison.speedup(name),
                    "of_bound": self.fraction(comparison, name),
                    "moved_bytes": timing.moved,
                }
                if not timing.failed
                else {"failed": timing.failed}
                for name, timing in comparison.timings.items()
            },
        }

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Report:
        """The report that :meth:`to_dict` wrote."""
        options: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in plain["plan"].items()}
        comparisons = tuple(_comparison(model) for model in plain["models"])
        return Report(Machine(**plain["machine"]), Plan(**options), plain["versions"], comparisons)


def _comparison(plain: Mapping[str, Any]) -> Comparison:
    work = Work(plain["flops"], plain["weight_bytes"], plain["input_output_bytes"])
    timings = {
        name: Timing(name, failed=found["failed"])
        if "failed" in found
        else Timing(
            name,
            tuple(found["round_medians_s"]),
            tuple(found["round_minima_s"]),
            tuple(found["spread_s"]),
            found["prepare_s"],
            math.inf if found["error"] is None else found["error"],
            moved=found.get("moved_bytes", 0),
        )
        for name, found in plain["systems"].items()
    }
    return Comparison(plain["model"], work, plain["allowed_error"], timings, tuple(Peaks(**peaks) for peaks in plain["round_peaks"]))


def _geometric_mean(ratios: Iterable[float]) -> float:
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return statistics.geometric_mean(finite) if finite else math.nan


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
