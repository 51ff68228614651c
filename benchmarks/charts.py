"""Charts of a report as SVG: bars of latency, and a roofline after Williams, Waterman and Patterson (2009)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from .report import Comparison, Report
from .systems import OURS, SYSTEMS
from .tables import duration

_COLOURS = ("#d1495b", "#30638e", "#00798c", "#7aa095", "#8d6a9f", "#edae49")
_WIDTH = 880
_ROW = 17
_LEFT = 110
"""Where bars begin, and the axis of the roofline."""

_BARS = 560
"""Width of the longest bar."""


def colour(system: str) -> str:
    """The same for a system in every chart."""
    return _COLOURS[tuple(SYSTEMS).index(system) % len(_COLOURS)]


def bars(report: Report, comparison: Comparison) -> str:
    """Median latency of each system, the whisker from the tenth to the ninetieth percentile; the dashed line is the bound."""
    timed = [timing for timing in comparison.timings.values() if not timing.failed]
    bound = report.bound(comparison)
    longest = max([bound, *(timing.spread[1] for timing in timed), 1e-12])
    scale = _BARS / longest
    parts = []
    for row, (system, timing) in enumerate(comparison.timings.items()):
        y = row * _ROW
        middle = y + _ROW / 2
        parts.append(_text(_LEFT - 6, middle + 4, system, anchor="end"))
        if timing.failed:
            parts.append(_text(_LEFT + 4, middle + 4, "failed", kind="quiet"))
            continue
        low, high = timing.spread
        figure = duration(timing.median) + ("" if comparison.sound(system) else ", wrong outputs")
        width = timing.median * scale
        parts.append(f'<rect x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 4}" fill="{colour(system)}"/>')
        parts.append(_line(_LEFT + low * scale, middle, _LEFT + high * scale, middle, "whisker"))
        parts.append(_text(_LEFT + max(width, high * scale) + 6, middle + 4, figure))
    height = len(comparison.timings) * _ROW
    if bound > 0:
        parts.append(_line(_LEFT + bound * scale, 0, _LEFT + bound * scale, height, "roof dashed"))
    return _svg(_WIDTH, height, f"latency of {comparison.model}", parts)


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from ``low`` to ``high`` between two places."""

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self, *digits: int) -> list[float]:
        """Each decade's multiples by ``digits`` that lie on the axis."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        return [value for power in decades for digit in digits if self.low <= (value := digit * 10.0**power) <= self.high]


def roofline(report: Report) -> str:
    """FLOP/s over FLOP per byte, both logarithmic: the machine's roof, and a point for each system on each model."""
    drawn = [c for c in report.comparisons if c.work.flops and c.work.nbytes and any(not t.failed for t in c.timings.values())]
    if not drawn:
        return ""
    machine = report.machine
    rates = [c.work.flops / t.median for c in drawn for t in c.timings.values() if not t.failed]
    intensities = [c.work.intensity for c in drawn]
    ridge = machine.flops / machine.bandwidth
    top, bottom = 170, 540
    across = _Axis(min(*intensities, ridge) / 1.6, max(*intensities, ridge) * 1.6, _LEFT, _WIDTH - 20)
    up = _Axis(min(*rates, machine.bandwidth * across.low) / 1.5, max(*rates, machine.flops) * 1.3, bottom, top)
    parts = []
    for value in across.ticks(1, 2, 5):
        parts += [
            _line(across.place(value), top, across.place(value), bottom, "grid"),
            _text(across.place(value), bottom + 16, f"{value:g}", "middle"),
        ]
    for value in up.ticks(1, 2, 5):
        label = f"{value / 1e9:g} GFLOP/s"
        parts += [_line(_LEFT, up.place(value), _WIDTH - 20, up.place(value), "grid"), _text(_LEFT - 6, up.place(value) + 4, label, "end")]
    parts.append(_text(_WIDTH - 20, bottom + 32, "FLOP per byte of weights, inputs and outputs", "end"))
    roof = [(across.low, machine.bandwidth * across.low), (ridge, machine.flops), (across.high, machine.flops)]
    points = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in roof)
    parts.append(f'<polyline class="roof" fill="none" points="{points}"/>')
    for over, c in zip(_spread_out([across.place(c.work.intensity) for c in drawn], 15), drawn, strict=True):
        x = across.place(c.work.intensity)
        parts.append(_line(over, top - 20, x, top, "grid"))
        parts.append(f'<text class="label" transform="translate({over + 4:.1f} {top - 24}) rotate(-90)">{escape(c.model)}</text>')
        for system in sorted(c.timings, key=lambda name: name == OURS):  # mlc on top
            timing = c.timings[system]
            if not timing.failed:
                rate = c.work.flops / timing.median
                title = f"{c.model}, {system}: {rate / 1e9:.1f} GFLOP/s, {report.fraction(c, system):.0%} of the roof"
                dot = f'<circle cx="{x:.1f}" cy="{up.place(rate):.1f}" r="{5 if system == OURS else 4}" fill="{colour(system)}">'
                parts.append(f"{dot}<title>{escape(title)}</title></circle>")
    return _svg(_WIDTH, bottom + 40, "roofline", parts)


def legend(systems: Iterable[str]) -> str:
    """The systems and their colours, as HTML."""
    return " ".join(f'<span class="key"><i style="background:{colour(system)}"></i>{escape(system)}</span>' for system in systems)


def _spread_out(places: Sequence[float], gap: float) -> list[float]:
    """The places moved apart to at least ``gap`` from each other, as little as possible in the sense of least squares.

    With ``gap`` times its rank taken from each place, this is isotonic regression: neighbours in the wrong order get their mean.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([places[index] - gap * rank])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [statistics.fmean(pool) for pool in pools for _ in pool]
    last = _WIDTH - gap * len(places)
    return [place for _, place in sorted((index, min(level[rank], last) + gap * rank) for rank, index in enumerate(order))]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, content: str, anchor: str = "start", kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def _svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f"aria-label={quoteattr(label)}>\n" + "\n".join(parts) + "\n</svg>"
    )
