"""A report as one HTML page that needs nothing else: ``python -m mlc.benchmarks.page report.json page.html``."""

from __future__ import annotations

import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

from .. import html_page
from .charts import bars, legend, roofline
from .report import Comparison, Report
from .systems import OURS
from .tables import duration


def page(report: Report) -> str:
    """The page, as well-formed XML: the machine, a table, the roofline, and bars for every model."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if name != "time")
    plan = report.plan
    parts = [
        "<h1>Latency beside other systems</h1>",
        f"<p>{escape(str(machine))}. {escape(versions)}; {escape(report.versions.get('time', ''))}.</p>",
        f"<p>{plan.threads} threads, {plan.rounds} rounds around the systems of {plan.seconds:g} s each; medians. Bars end at the median, "
        "their whiskers go from the tenth to the ninetieth percentile of all calls. The dashed line is the least time that the measured "
        "peaks allow for direct arithmetic; Winograd's algorithm needs less and may pass it.</p>",
        f"<p>{legend(plan.systems)}</p>",
        _table(report),
        "<h2>Roofline</h2>",
        roofline(report),
        "<h2>Models</h2>",
        *(part for comparison in report.comparisons for part in _model(report, comparison)),
    ]
    return html_page.page("mlc benchmark", parts)


def _table(report: Report) -> str:
    rows = []
    for c in report.comparisons:
        peer, ours = c.best_peer, c.timings.get(OURS)
        rows.append(
            (
                escape(c.model),
                duration(ours.median) if ours is not None else "-",
                escape(peer or "none"),
                duration(c.timings[peer].median) if peer is not None else "-",
                _times(c.against_best),
                _times(c.against_best_least),
                _share(report.fraction(c, OURS)) if ours is not None else "-",
                _share(report.fraction(c, peer)) if peer is not None else "-",
            )
        )
    headings = ("model", "mlc", "best peer", "its median", "mlc is faster", "by least times", "mlc of roof", "peer of roof")
    means = f"{_times(report.against_best)}, {_times(report.against_best_least)} by least times"
    mean = f"<p>Geometric mean against the best peer of each model: {means}.</p>"
    return f"{html_page.table(headings, rows, ['best peer'])}\n{mean}"


def _model(report: Report, comparison: Comparison) -> list[str]:
    work = comparison.work
    needs = f"{work.flops / 1e9:.3g} GFLOP, {work.nbytes / 1e6:.3g} MB, at least {duration(report.bound(comparison))}"
    parts = [f'<h3>{escape(comparison.model)} <span class="quiet">{needs}</span></h3>', bars(report, comparison)]
    for system, timing in comparison.timings.items():
        if timing.failed:
            parts.append(f'<p class="quiet">{escape(system)} failed: {escape(timing.failed)}</p>')
    return parts


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if math.isfinite(ratio) else "-"


def _share(fraction: float) -> str:
    return f"{fraction:.0%}" if math.isfinite(fraction) else "-"


def main(arguments: list[str]) -> None:
    source, target = arguments
    report = Report.from_dict(json.loads(pathlib.Path(source).read_text()))
    pathlib.Path(target).write_text(page(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
