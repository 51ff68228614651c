"""The HTML page of what ``precision="auto"`` decided: modes, errors and predicted times, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

from .html_page import legend, page, table
from .runtime.precision_report import LayerPrecision, PrecisionReport
from .svg import LogAxis, bar, dot, drawing, frame, text

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")
_QUIET = "#9498a0"
_LEAST_ERROR = 1e-7
"""Where errors below are drawn."""
_LONGEST = 20
"""Layers in the chart of times: those that take longest in fp32."""


def precision_page(name: str, report: PrecisionReport) -> str:
    """The page, as well-formed XML."""
    lowered = [layer for layer in report.layers if layer.mode != "fp32"]
    parts = [
        f"<h1>Precision of {escape(name)}</h1>",
        f"<p>{escape(_summary(report))}</p>",
        *([f"<p><b>{escape(report.note)}</b></p>"] if report.note else []),
    ]
    if report.layers:
        colours = _colours(report)
        parts += [legend(colours.items()), "<h3>Predicted time, in fp32 (grey) and in the mode chosen</h3>", _times(report.layers, colours)]
        if lowered:
            parts += ["<h3>What each layer costs in accuracy, and gains</h3>", _gains(lowered, colours, report.tolerance)]
        parts.append(_rows(report.layers))
    return page(f"Precision of {name}", parts)


def _summary(report: PrecisionReport) -> str:
    modes = ", ".join(f"{count} {mode}" for mode, count in report.modes.items())
    judged = f"the worst of {report.samples} samples, {report.held_out} of them held out; tolerance {report.tolerance:g}"
    times = f"Predicted for the layers: {_us(report.seconds)} us, in fp32 {_us(report.fp32_seconds)} us."
    return f"Layers: {modes or 'none'}. Relative error of the results {report.error:.1e}, {judged}. {times}"


def _colours(report: PrecisionReport) -> dict[str, str]:
    return {mode: _QUIET if mode == "fp32" else _COLOURS[place % len(_COLOURS)] for place, mode in enumerate(report.modes)}


def _times(layers: Iterable[LayerPrecision], colours: dict[str, str]) -> str:
    """Two bars a layer."""
    longest = sorted(layers, key=lambda layer: -layer.fp32_seconds)[:_LONGEST]
    most = max(layer.fp32_seconds for layer in longest) or 1.0
    left, width, height = 250, 560, 30
    parts = []
    for place, layer in enumerate(longest):
        y = place * height
        title = f"{_name(layer)}: {_us(layer.fp32_seconds)} us in fp32, {_us(layer.seconds)} us in {layer.mode}"
        parts.append(text(left - 8, y + 17, _short(_name(layer)), "end"))
        parts.append(bar(left, y + 3, width * layer.fp32_seconds / most, 10, _QUIET, title))
        parts.append(bar(left, y + 14, width * layer.seconds / most, 10, colours[layer.mode], title))
    return drawing(left + width + 20, len(longest) * height + 6, "predicted time of the layers", parts)


def _gains(layers: Iterable[LayerPrecision], colours: dict[str, str], tolerance: float) -> str:
    """A dot a lowered layer: its error to the right, the share of its time that is saved upwards."""
    errors = [max(layer.error, _LEAST_ERROR) for layer in layers]
    across = LogAxis(min(errors) / 2, max(*errors, tolerance) * 2, 80, 800, digits=(1,))
    speeds = [layer.fp32_seconds / layer.seconds for layer in layers if layer.seconds > 0]
    up = LogAxis(0.9, max([*speeds, 2.0]) * 1.2, 260, 20)
    parts = frame(across, up, "relative error of the results, this layer alone lowered", "times as quick")
    for layer, error in zip(layers, errors, strict=True):
        if layer.seconds > 0:
            speed = layer.fp32_seconds / layer.seconds
            parts.append(dot(across.place(error), up.place(speed), 4, colours[layer.mode], f"{_name(layer)} ({layer.mode})"))
    return drawing(820, 310, "error and speed of the lowered layers", parts)


def _rows(layers: Iterable[LayerPrecision]) -> str:
    rows = (
        (
            f"<code>{escape(_name(layer))}</code>",
            escape(layer.mode),
            f"{layer.error:.1e}",
            _us(layer.seconds),
            _us(layer.fp32_seconds),
            f"{layer.parameters:,}",
        )
        for layer in layers
    )
    return table(("layer", "mode", "error", "us", "us in fp32", "parameters"), rows, names=("layer", "mode"))


def _name(layer: LayerPrecision) -> str:
    return ", ".join(layer.modules) or "(the model itself)"


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"...{name[-33:]}"


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"
