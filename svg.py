"""Charts as SVG text, for pages that need nothing else: axes, a frame with a grid, and the marks in it.

Lines and labels take their colours from the classes of :mod:`.html_page`, so that they suit a light and a dark page.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from xml.sax.saxutils import escape, quoteattr

COLOURS = ("#d1495b", "#30638e", "#00798c", "#7aa095", "#8d6a9f", "#edae49")
"""Told apart on white and on black, and by readers who see red and green alike."""


class Axis(Protocol):
    """Values from ``begin`` to ``end``, two coordinates of the drawing."""

    @property
    def begin(self) -> float: ...

    @property
    def end(self) -> float: ...

    def place(self, value: float) -> float:
        """The coordinate of a value."""

    def ticks(self) -> list[float]:
        """The values to write at the axis."""


@dataclass(frozen=True)
class LinearAxis:
    """From ``low`` to ``high``, which differ, with some six ticks at round values."""

    low: float
    high: float
    begin: float
    end: float

    def place(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        coarse = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(coarse))
        step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= coarse * (1 - 1e-9))
        return [number * step for number in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic axis from ``low`` to ``high``, both positive, with ticks at each decade's multiples by ``digits``."""

    low: float
    high: float
    begin: float
    end: float
    digits: tuple[int, ...] = (1, 2, 5)

    def place(self, value: float) -> float:
        return self.begin + (self.end - self.begin) * math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        return [value for power in decades for digit in self.digits if self.low <= (value := digit * 10.0**power) <= self.high]


def frame(across: Axis, up: Axis, across_title: str, up_title: str, unit: float = 1.0) -> list[str]:
    """Grid lines, the figures at them and what they mean. Figures of the upward axis are in ``unit``."""
    parts = []
    for value in across.ticks():
        x = across.place(value)
        parts += [line(x, up.begin, x, up.end, "grid"), text(x, up.begin + 16, f"{value:g}", "middle")]
    for value in up.ticks():
        y = up.place(value)
        parts += [line(across.begin, y, across.end, y, "grid"), text(across.begin - 6, y + 4, f"{value / unit:g}", "end")]
    parts.append(text(across.end, up.begin + 32, across_title, "end"))
    parts.append(turned(across.begin - 58, up.end, up_title, "end"))
    return parts


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def polyline(points: Iterable[tuple[float, float]], kind: str, colour: str = "", title: str = "") -> str:
    """A line through ``points``; where no ``colour`` is given, in that of its class. ``title`` is what a pointer over it shows."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    stroke = f' stroke="{colour}"' if colour else ""
    return f'<polyline class="{kind}" fill="none"{stroke} points="{places}">{_title(title)}</polyline>'


def dot(x: float, y: float, radius: float, colour: str, title: str, *, hollow: bool = False) -> str:
    look = f'fill="none" stroke="{colour}" stroke-width="1.5"' if hollow else f'fill="{colour}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {look}>{_title(title)}</circle>'


def dots(points: Iterable[tuple[float, float]], colour: str, title: str) -> str:
    """Many dots in few bytes: strokes without length, whose round ends are what is seen."""
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f'<path class="dots" stroke="{colour}" d="{path}">{_title(title)}</path>'


def bar(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">{_title(title)}</rect>'


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def turned(x: float, y: float, content: str, anchor: str = "start") -> str:
    """Text that is read from below."""
    return f'<text class="label" text-anchor="{anchor}" transform="translate({x:.1f} {y:.1f}) rotate(-90)">{escape(content)}</text>'


def drawing(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """The whole picture; ``label`` says what it shows to those who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f"aria-label={quoteattr(label)}>\n" + "\n".join(parts) + "\n</svg>"
    )


def spread_out(places: Sequence[float], gap: float, end: float) -> list[float]:
    """The places moved apart to at least ``gap`` from each other, as little as possible in the sense of least squares, before ``end``.

    With ``gap`` times its rank taken from each place, this is isotonic regression: neighbours in the wrong order get their mean.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    pools: list[list[float]] = []
    for rank, index in enumerate(order):
        pools.append([places[index] - gap * rank])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = [statistics.fmean(pool) for pool in pools for _ in pool]
    last = end - gap * len(places)
    return [place for _, place in sorted((index, min(level[rank], last) + gap * rank) for rank, index in enumerate(order))]


def _title(content: str) -> str:
    return f"<title>{escape(content)}</title>" if content else ""
