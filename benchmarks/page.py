"""A report as one HTML page that needs nothing else: ``python -m mlc.benchmarks.page report.json page.html``."""

from __future__ import annotations

import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

from .charts import bars, legend, roofline
from .report import Comparison, Report
from .systems import OURS
from .tables import duration

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ddd; --quiet: #777; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --line: #3a3a3a; --quiet: #999; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 900px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, .name { text-align: left; }
h3 { margin: 1.2em 0 .3em; font-size: 1em; }
svg { max-width: 100%; height: auto; }
.label { font-size: 12px; fill: var(--ink); } .quiet { font-size: 12px; fill: var(--quiet); color: var(--quiet); }
.grid { stroke: var(--line); } .roof { stroke: var(--ink); stroke-width: 1.5; } .dashed { stroke-dasharray: 4 3; }
.whisker { stroke: var(--ink); stroke-width: 1.2; }
.key { margin-right: 1em; } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; }
"""


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
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en">\n<head><meta charset="utf-8"/>'
        f"<title>mlc benchmark</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _table(report: Report) -> str:
    rows = []
    for c in report.comparisons:
        peer, ours = c.best_peer, c.timings.get(OURS)
        cells = [f"<td>{escape(c.model)}</td>", f"<td>{duration(ours.median) if ours is not None else '-'}</td>"]
        cells.append(
            f'<td class="name">{escape(peer or "none")}</td><td>{duration(c.timings[peer].median) if peer is not None else "-"}</td>'
        )
        cells.append(f"<td>{_times(c.against_best)}</td><td>{_times(c.against_best_least)}</td>")
        cells.append(f"<td>{_share(report.fraction(c, OURS)) if ours is not None else '-'}</td>")
        cells.append(f"<td>{_share(report.fraction(c, peer)) if peer is not None else '-'}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    headings = ("model", "mlc", "best peer", "its median", "mlc is faster", "by least times", "mlc of roof", "peer of roof")
    head = "".join(f'<th class="{"name" if name == "best peer" else "figure"}">{name}</th>' for name in headings)
    means = f"{_times(report.against_best)}, {_times(report.against_best_least)} by least times"
    mean = f"<p>Geometric mean against the best peer of each model: {means}.</p>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table>\n{mean}"


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
