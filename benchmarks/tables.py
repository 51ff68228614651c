"""Benchmark reports as terminal tables."""

from __future__ import annotations

import math

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .report import Comparison, Report, Timing
from .systems import BASELINE, OURS

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
    """Latency, speed-up over the baseline, share of the bound and error of each system on each model; then mlc against the best peer.

    The spread is half the distance between the tenth and ninetieth percentile, relative to the median.
    """
    grid = _grid(str(report.machine), "model", "system", "median", "spread", "speed-up", "GFLOP/s", "of roof", "error", "ready in")
    for comparison in report.comparisons:
        for position, (system, timing) in enumerate(comparison.timings.items()):
            name = f"{comparison.model}" if position == 0 else ""
            end = position == len(comparison.timings) - 1
            grid.add_row(name, system, *_cells(report, comparison, system, timing), end_section=end)
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
    if len(report.plan.systems) > 2:
        notes.insert(0, best_peers(report))
    return Group(grid, *notes)


def best_peers(report: Report) -> RenderableType:
    """One row a model: the best peer, how many times faster mlc is by medians and by least times, and what both reach of the bound."""
    title = (
        "mlc against the best peer of each model, by medians and by least times; of roof: the least time that the measured peaks "
        "allow for direct arithmetic, over the median"
    )
    grid = _grid(title, "model", OURS, "of roof", "best peer", "median", "of roof", "mlc is", "by least")
    for c in report.comparisons:
        peer, ours = c.best_peer, c.timings.get(OURS)
        cells: list[str | Text] = [duration(ours.median), _share(report.fraction(c, OURS))] if ours is not None else ["-", "-"]
        if peer is None:
            cells.append("none")
        else:
            cells += [peer, duration(c.timings[peer].median), _share(report.fraction(c, peer))]
            cells += [_ratio(c.against_best), _ratio(c.against_best_least)]
        grid.add_row(c.model, *cells)
    if not math.isfinite(report.against_best):
        return grid
    mean = f"geometric mean: {report.against_best:.2f}x as fast as the best peer, {report.against_best_least:.2f}x by least times"
    return Group(grid, mean)


def _grid(title: str, *headings: str) -> Table:
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    for heading in headings:
        # only a model's name may be broken to fit a narrow terminal
        left = heading in ("model", "system", "best peer")
        grid.add_column(heading, justify="left" if left else "right", no_wrap=heading != "model", overflow="fold")
    return grid


def _cells(report: Report, comparison: Comparison, system: str, timing: Timing) -> tuple[str | Text, ...]:
    if timing.failed:
        return (Text("failed", style="red"),)
    low, high = timing.spread
    flops = comparison.work.flops
    return (
        duration(timing.median),
        f"{50 * (high - low) / timing.median:.0f}%",
        _ratio(comparison.speedup(system)) if system != BASELINE else "1",
        f"{flops / timing.median / 1e9:.0f}" if flops else "-",
        _share(report.fraction(comparison, system)) if comparison.work.nbytes else "-",
        Text(f"{timing.error:.1e}", style="" if comparison.sound(system) else "red"),
        f"{timing.prepare_s:.1f} s",
    )


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f}%" if math.isfinite(fraction) else "-"


def _ratio(speedup: float) -> Text:
    if math.isnan(speedup):
        return Text("-")
    return Text(f"{speedup:.2f}x", style="green" if speedup >= 1 else "red")
