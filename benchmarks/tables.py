"""Benchmark reports as terminal tables."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .suite import Comparison, Report, Timing
from .systems import BASELINE

BUSY = 0.1
"""Share of the processor's time taken by others from which on a report warns."""


def duration(seconds: float) -> str:
    """Three significant digits in the unit that suits: ``41.3 ms``, ``9.81 us``."""
    if math.isnan(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale or unit == "us":
            value = seconds / scale
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    raise AssertionError("the last unit takes every duration")


def table(report: Report) -> RenderableType:
    """Latency, speed-up, share of the measured peak and error of each system on each model.

    The spread is half the distance between the tenth and ninetieth percentile, relative to the median.
    """
    grid = Table(title=str(report.machine), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    for heading in ("model", "system", "median", "spread", "speed-up", "GFLOP/s", "of peak", "error", "ready in"):
        # only a model's name may be broken to fit a narrow terminal
        left = heading in ("model", "system")
        grid.add_column(heading, justify="left" if left else "right", no_wrap=heading != "model", overflow="fold")
    for comparison in report.comparisons:
        for position, (system, timing) in enumerate(comparison.timings.items()):
            name = f"{comparison.model}" if position == 0 else ""
            end = position == len(comparison.timings) - 1
            grid.add_row(name, system, *_cells(comparison, system, timing, report.machine.flops), end_section=end)
    means = [
        f"{system}: {report.geometric_mean(system):.2f}x as fast as {BASELINE} (geometric mean)"
        for system in report.plan.systems
        if system != BASELINE and math.isfinite(report.geometric_mean(system))
    ]
    failures = [
        Text(f"{c.model}, {system} failed: {timing.failed}", style="red")
        for c in report.comparisons
        for system, timing in c.timings.items()
        if timing.failed
    ]
    notes: list[RenderableType] = [*means, *failures]
    if report.machine.busy > BUSY:
        share = f"{100 * report.machine.busy:.0f}%"
        notes.append(Text(f"other programs kept the processor {share} busy before the start: trust no figure here", style="yellow"))
    return Group(grid, *notes)


def _cells(comparison: Comparison, system: str, timing: Timing, peak: float) -> tuple[str | Text, ...]:
    if timing.failed:
        return (Text("failed", style="red"),)
    low, high = timing.spread
    speedup = comparison.speedup(system)
    rate = comparison.flops / timing.median
    return (
        duration(timing.median),
        f"{50 * (high - low) / timing.median:.0f}%",
        _ratio(speedup) if system != BASELINE else "1",
        f"{rate / 1e9:.0f}" if comparison.flops else "-",
        f"{100 * rate / peak:.0f}%" if comparison.flops else "-",
        Text(f"{timing.error:.1e}", style="" if comparison.sound(system) else "red"),
        f"{timing.prepare_s:.1f} s",
    )


def _ratio(speedup: float) -> Text:
    if math.isnan(speedup):
        return Text("-")
    return Text(f"{speedup:.2f}x", style="green" if speedup >= 1 else "red")
