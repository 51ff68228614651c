"""Charts of tuning: search curves, a roofline before and after, where time goes, and predictions beside measurements.

Kernels have numbers, the same in every chart and table of a page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from .costmodel import Rates
from .svg import COLOURS, LinearAxis, LogAxis, bar, dot, dots, drawing, frame, line, polyline, spread_out, text
from .tuning_history import Calibration, Step, TaskHistory, search_curve
from .tuning_report import label, microseconds

Numbered: TypeAlias = tuple[int, TaskHistory]
"""A kernel and its number."""

BEFORE, AFTER = "#7aa095", "#d1495b"

_WIDTH = 880
_LEFT = 80
_NUMBERED = 12
"""Kernels whose numbers stand beside their marks."""

_READABLE = 60
"""Width of a slope of the roofline from which on it has its name beside it."""

_POINTS = 4000
"""Dots that a chart draws at most."""


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit in which a time has some digits before the point, and its seconds."""
    return ("s", 1.0) if seconds >= 1 else ("ms", 1e-3) if seconds >= 1e-3 else ("us", 1e-6)


def sum_curve(curve: Sequence[Step], before: float) -> str:
    """The best time of all calls so far over trials; the dashed line is what default configs take."""
    if not curve:
        return ""
    highest = max(before, *(step.seconds for step in curve)) if math.isfinite(before) else max(step.seconds for step in curve)
    name, unit = unit_of(highest)
    across, up = LinearAxis(0, curve[-1].trial, _LEFT, _WIDTH - 20), LinearAxis(0, 1.05 * highest, 260, 10)
    parts = frame(across, up, "configs measured, failures included", f"best time of all calls, {name}", unit)
    if before > 0 and math.isfinite(before):
        parts.append(line(across.begin, up.place(before), across.end, up.place(before), "roof dashed"))
    parts.append(polyline(_stairs(curve, across, up), "curve", AFTER))
    return drawing(_WIDTH, 300, "best time of all calls over trials", parts)


def task_curves(histories: Sequence[Numbered]) -> str:
    """Each kernel's best time so far, in parts of its default's."""
    curves = [(number, each, search_curve(each)) for number, each in histories]
    curves = [(number, each, curve) for number, each, curve in curves if curve]
    if not curves:
        return ""
    relative = [
        [Step(step.trial, step.seconds / (each.before if math.isfinite(each.before) else curve[0].seconds)) for step in curve]
        for _, each, curve in curves
    ]
    across = LinearAxis(0, max(curve[-1].trial for curve in relative), _LEFT, _WIDTH - 60)
    up = LinearAxis(0, 1.05 * max(1.0, *(step.seconds for curve in relative for step in curve)), 340, 10)
    parts = frame(across, up, "configs measured of the kernel, failures included", "best time so far, parts of the default's")
    for (number, each, _), curve in zip(curves, relative, strict=True):
        title = f"{number} {label(each.task)}: {curve[-1].seconds:.2f} of the default's time"
        parts.append(polyline(_stairs(curve, across, up), "curve", _colour(number), title))
    ends = [(number, curve[-1]) for (number, _, _), curve in zip(curves, relative, strict=True)][:_NUMBERED]
    for y, (number, end) in zip(spread_out([up.place(end.seconds) for _, end in ends], 13, 353), ends, strict=True):
        parts.append(line(across.place(end.trial), up.place(end.seconds), across.end + 20, y, "grid"))
        parts.append(text(across.end + 24, y + 4, str(number)))
    return drawing(_WIDTH, 380, "best time of each kernel over trials", parts)


def _stairs(curve: Sequence[Step], across: LinearAxis, up: LinearAxis) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for step in curve:
        x, y = across.place(step.trial), up.place(step.seconds)
        points += [(x, points[-1][1]), (x, y)] if points else [(x, y)]
    return points


def roofline(histories: Sequence[Numbered]) -> str:
    """Kernels of one target and number of threads by arithmetic per byte: hollow as they were, filled as they are.

    The roofs are the target's sustained rates, one slope for each level of memory (Ilic, Pratas and Sousa, "Cache-aware roofline
    model", 2014): what lies in a cache is not bound by memory.
    """
    drawn = [(number, each) for number, each in histories if each.best is not None and each.work.operations]
    if not drawn:
        return ""
    rates = Rates.sustained(drawn[0][1].task.target, drawn[0][1].task.threads)
    slopes = {"L1": rates.l1, "L2": rates.l2, "L3": rates.l3, "memory": rates.memory}
    intensities = [each.work.intensity for _, each in drawn]
    reached = [each.work.operations / seconds for _, each in drawn for seconds in (each.before, each.after) if math.isfinite(seconds)]
    ridge = rates.operations / rates.memory
    across = LogAxis(min(*intensities, ridge) / 2, max(*intensities, ridge) * 2, _LEFT, _WIDTH - 20)
    up = LogAxis(min(reached) / 2, max(*reached, rates.operations) * 1.5, 400, 10)
    parts = frame(across, up, "FLOP per byte of weights, inputs and outputs", "GFLOP/s", 1e9)
    y = up.place(rates.operations)
    parts.append(line(across.place(max(across.low, rates.operations / rates.l1)), y, across.end, y, "roof"))
    for name, slope in slopes.items():
        begin, end = max(across.low, up.low / slope), min(rates.operations / slope, across.high)
        if begin < end:
            ends = [(across.place(x), up.place(x * slope)) for x in (begin, end)]
            parts.append(polyline(ends, "roof"))
            if ends[1][0] - ends[0][0] > _READABLE:
                parts.append(text(ends[0][0] + 8, ends[0][1] + 12, name, kind="quiet"))
    for number, each in drawn:
        parts += _moved(number, each, across, up)
    return drawing(_WIDTH, 440, "roofline of the kernels before and after", parts)


def _moved(number: int, each: TaskHistory, across: LogAxis, up: LogAxis) -> list[str]:
    """A kernel on the roofline: where it was, where it is, and the way."""
    x, work = across.place(each.work.intensity), each.work.operations
    name = f"{number} {label(each.task)}"
    parts = []
    now = up.place(work / each.after)
    if each.is_compared:
        was = up.place(work / each.before)
        parts += [
            line(x, was, x, now, "grid"),
            dot(x, was, 4, BEFORE, f"{name} before: {work / each.before / 1e9:.4g} GFLOP/s", hollow=True),
        ]
    parts.append(dot(x, now, 4, AFTER, f"{name}: {work / each.after / 1e9:.4g} GFLOP/s"))
    if number <= _NUMBERED:
        parts.append(text(x + 7, now + 4, str(number)))
    return parts


def time_bars(histories: Sequence[Numbered]) -> str:
    """Time of all calls of each kernel, before above after."""
    drawn = [(number, each) for number, each in histories if each.is_compared]
    if not drawn:
        return ""
    longest = max(each.occurrences * max(each.before, each.after) for _, each in drawn)
    name, unit = unit_of(longest)
    left, row = 330, 26
    across = LinearAxis(0, longest / unit, left, _WIDTH - 70)
    bottom = row * len(drawn)
    parts = []
    for value in across.ticks():
        x = across.place(value)
        parts += [line(x, 0, x, bottom, "grid"), text(x, bottom + 16, f"{value:g}", "middle")]
    parts.append(text(_WIDTH - 20, bottom + 32, f"time of all calls, {name}", "end"))
    for place, (number, each) in enumerate(drawn):
        y = place * row
        title = f"{number} {label(each.task)}"
        parts.append(text(left - 6, y + 16, title if len(title) <= 46 else f"{title[:45]}...", "end"))
        for offset, seconds, colour in ((3, each.before, BEFORE), (13, each.after, AFTER)):
            width = across.place(each.occurrences * seconds / unit) - left
            parts.append(bar(left, y + offset, width, 9, colour, f"{title}: {microseconds(each.occurrences * seconds)} us"))
    return drawing(_WIDTH, bottom + 40, "time of all calls of each kernel", parts)


def calibration_chart(calibration: Calibration, colour: str) -> str:
    """Predicted over measured time of every config, both logarithmic; on the dashed line they agree."""
    pairs = [(judged, list(zip(judged.measured, judged.predicted, strict=True))) for judged in calibration.judgements if judged.measured]
    every = [seconds for _, points in pairs for point in points for seconds in point]
    if not every:
        return ""
    low, high = min(every) / 1.5, max(every) * 1.5
    name, unit = unit_of(math.sqrt(low * high))
    digits = (1, 2, 5) if high / low < 100 else (1,)
    across = LogAxis(low / unit, high / unit, _LEFT, 430, digits)
    up = LogAxis(low / unit, high / unit, 360, 10, digits)
    parts = frame(across, up, f"measured, {name}", f"predicted by the {calibration.model}, {name}")
    parts.append(line(across.begin, up.begin, across.end, up.end, "roof dashed"))
    step = math.ceil(sum(len(points) for _, points in pairs) / _POINTS)
    for judged, points in pairs:
        placed = [(across.place(measured / unit), up.place(predicted / unit)) for measured, predicted in points[::step]]
        parts.append(dots(placed, colour, label(judged.task)))
    return drawing(440, 400, f"predictions of the {calibration.model} beside measurements", parts)


def same_machine(histories: Iterable[Numbered]) -> dict[tuple[str, int], list[Numbered]]:
    """Histories by target and number of threads, which decide the roof."""
    groups: dict[tuple[str, int], list[Numbered]] = {}
    for number, each in histories:
        groups.setdefault((str(each.task.target), each.task.threads), []).append((number, each))
    return groups


def _colour(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]
