"""Charts of a report as SVG: bars of latency, and a roofline after Williams, Waterman and Patterson (2009)."""

from __future__ import annotations

from collections.abc import Iterable

from .. import html_page
from ..svg import COLOURS, LogAxis, bar, dot, drawing, frame, line, polyline, spread_out, text, turned
from .report import Comparison, Report
from .systems import OURS, SYSTEMS
from .tables import duration

_WIDTH = 880
_ROW = 17
_LEFT = 110
"""Where bars begin, and the axis of the roofline."""

_BARS = 560
"""Width of the longest bar."""


def colour(system: str) -> str:
    """The same for a system in every chart."""
    return COLOURS[tuple(SYSTEMS).index(system) % len(COLOURS)]


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
        parts.append(text(_LEFT - 6, middle + 4, system, anchor="end"))
        if timing.failed:
            parts.append(text(_LEFT + 4, middle + 4, "failed", kind="quiet"))
            continue
        low, high = timing.spread
        figure = duration(timing.median) + ("" if comparison.sound(system) else ", wrong outputs")
        width = timing.median * scale
        parts.append(bar(_LEFT, y + 2, width, _ROW - 4, colour(system)))
        parts.append(line(_LEFT + low * scale, middle, _LEFT + high * scale, middle, "whisker"))
        parts.append(text(_LEFT + max(width, high * scale) + 6, middle + 4, figure))
    height = len(comparison.timings) * _ROW
    if bound > 0:
        parts.append(line(_LEFT + bound * scale, 0, _LEFT + bound * scale, height, "roof dashed"))
    return drawing(_WIDTH, height, f"latency of {comparison.model}", parts)


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
    across = LogAxis(min(*intensities, ridge) / 1.6, max(*intensities, ridge) * 1.6, _LEFT, _WIDTH - 20)
    up = LogAxis(min(*rates, machine.bandwidth * across.low) / 1.5, max(*rates, machine.flops) * 1.3, bottom, top)
    parts = frame(across, up, "FLOP per byte of weights, inputs and outputs", "GFLOP/s", 1e9)
    roof = [(across.low, machine.bandwidth * across.low), (ridge, machine.flops), (across.high, machine.flops)]
    parts.append(polyline([(across.place(x), up.place(y)) for x, y in roof], "roof"))
    for over, c in zip(spread_out([across.place(c.work.intensity) for c in drawn], 15, _WIDTH), drawn, strict=True):
        x = across.place(c.work.intensity)
        parts.append(line(over, top - 20, x, top, "grid"))
        parts.append(turned(over + 4, top - 24, c.model))
        for system in sorted(c.timings, key=lambda name: name == OURS):  # mlc on top
            timing = c.timings[system]
            if not timing.failed:
                rate = c.work.flops / timing.median
                title = f"{c.model}, {system}: {rate / 1e9:.1f} GFLOP/s, {report.fraction(c, system):.0%} of the roof"
                parts.append(dot(x, up.place(rate), 5 if system == OURS else 4, colour(system), title))
    return drawing(_WIDTH, bottom + 40, "roofline", parts)


def legend(systems: Iterable[str]) -> str:
    """The systems and their colours, as HTML."""
    return html_page.legend((system, colour(system)) for system in systems)
