"""The tuning of a model, or of everything in a database, as one HTML page that needs nothing else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from . import html_page
from .svg import COLOURS
from .tuning_charts import AFTER, BEFORE, Numbered, calibration_chart, roofline, same_machine, sum_curve, task_curves, time_bars
from .tuning_history import Calibration, TaskHistory, Totals, end_to_end_curve, search_curve
from .tuning_report import label, microseconds

SHOWN = 100
"""Kernels that have curves, points and rows of their own: those that take most time."""


@dataclass(frozen=True)
class Tuning:
    """What there is to tell. ``histories`` are those that take most time first, ``unmeasured`` the kernels that have none."""

    title: str
    database: str
    histories: tuple[TaskHistory, ...]
    calibrations: tuple[Calibration, ...]
    unmeasured: int = 0

    @property
    def totals(self) -> Totals:
        return Totals.of(self.histories)

    @property
    def shown(self) -> list[Numbered]:
        return list(enumerate(self.histories[:SHOWN], 1))

    def __str__(self) -> str:
        totals = self.totals
        times = f"{microseconds(totals.before)} -> {microseconds(totals.after)} us ({totals.speedup:.2f}x)" if totals.after else "no times"
        return f"{len(self.histories)} kernels, {totals.trials} configs measured, {totals.failed} measurements failed; {times}"

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-like data; what is not known is null."""
        totals = self.totals
        return {
            "title": self.title,
            "database": self.database,
            "unmeasured": self.unmeasured,
            "trials": totals.trials,
            "failed": totals.failed,
            "seconds_before": totals.before,
            "seconds_after": totals.after,
            "tasks": [_task_dict(each) for each in self.histories],
            "calibration": [
                {
                    "model": each.model,
                    "rank_correlation": _finite(each.rank_correlation),
                    "pairwise_accuracy": _finite(each.pairwise_accuracy),
                    "typical_factor": _finite(each.typical_factor),
                }
                for each in self.calibrations
            ],
        }


def page(tuning: Tuning) -> str:
    """The page, as well-formed XML: search curves, the roofline, where time goes, and how well cost models predicted it."""
    parts = [
        f"<h1>Tuning of {escape(tuning.title)}</h1>",
        *_summary(tuning),
        "<h2>Search</h2>",
        *_search(tuning),
        "<h2>Roofline</h2>",
        *_roofline(tuning),
        "<h2>Where time goes</h2>",
        *_shares(tuning),
        "<h2>Cost model</h2>",
        *_calibration(tuning),
    ]
    return html_page.page(f"mlc: tuning of {tuning.title}", parts)


def _summary(tuning: Tuning) -> list[str]:
    totals = tuning.totals
    times = [record.timestamp for each in tuning.histories for record in each.records]
    when = f", from {_date(min(times))} to {_date(max(times))}" if times else ""
    foreign = sum(each.foreign for each in tuning.histories)
    notes = [
        f"{escape(tuning.database)}: {totals.measurements} measurements of {totals.trials} configs of {len(tuning.histories)} kernels"
        f"{when}; {totals.failed} of them failed."
    ]
    if totals.after:
        before, after, bound = (microseconds(seconds) for seconds in (totals.before, totals.after, totals.bound))
        notes.append(
            f"All calls of the kernels took <b>{before} us</b> with default configs and take <b>{after} us</b> with the best ones, "
            f"<b>{totals.speedup:.2f}x</b> as fast; no kernels for them take less than {bound} us. Kernels alone are timed, not a call."
        )
    if loose := sum(each.is_compared and not each.is_side_by_side for each in tuning.histories):
        notes.append(
            f"Of {loose} kernels, marked ~, default and best were measured at different times, so that other load on the machine may be "
            "part of the difference: a tuning job that is not ended early compares them side by side."
        )
    if tuning.unmeasured:
        notes.append(f"{tuning.unmeasured} kernels of the model have no measurements in the database.")
    if foreign:
        notes.append(f"{foreign} measurements of configs that this version of mlc does not have are left out.")
    if len(tuning.histories) > SHOWN:
        notes.append(f"Charts and tables show the {SHOWN} kernels that take most time; sums are over all.")
    return [f"<p>{note}</p>" for note in notes]


def _search(tuning: Tuning) -> list[str]:
    rows = []
    for number, each in tuning.shown:
        curve = search_curve(each)
        found = next((str(step.trial) for step in curve if step.seconds == each.after), "-")
        rows.append(
            (
                _name(number, each),
                str(each.occurrences),
                str(each.trials),
                str(each.failed),
                microseconds(each.before),
                microseconds(each.after),
                _speedup(each),
                found,
                f"{each.bound.seconds / each.after:.0%}",
                f"<code>{escape(str(each.best.config))}</code>" if each.best is not None else "none works",
            )
        )
    headings = ("kernel", "calls", "configs", "failed", "before, us", "best, us", "speed-up", "found at", "of bound", "config")
    return [
        "<p>The best time known after each newly measured config; configs that failed count. A curve rises where a config was measured "
        "again and was slower than it had seemed. The dashed line is the time of default configs.</p>",
        sum_curve(end_to_end_curve(tuning.histories), tuning.totals.before),
        task_curves(tuning.shown),
        html_page.table(headings, rows, ["config"]),
        '<p class="quiet">Times are per call. "Found at" is the number of configs measured until the best time was first known, "of bound" '
        "how near it is to what no kernel beats: every cache as full as it can be, every unit busy, nothing spent on calling.</p>",
    ]


def _roofline(tuning: Tuning) -> list[str]:
    parts = [
        f"<p>{html_page.legend([('before', BEFORE), ('best', AFTER)])}</p>",
        "<p>Roofs are what the target sustains by its table of facts, not by measurement. Data in a cache may pass the roof of memory, and "
        "Winograd's algorithm, which needs fewer products than are counted, that of arithmetic. Kernels without arithmetic have no "
        "point.</p>",
    ]
    for (target, threads), group in same_machine(tuning.shown).items():
        parts += [f"<h3>{escape(target)}, {threads} threads</h3>", roofline(group)]
        rows = [
            (
                _name(number, each),
                f"{each.work.operations / 1e6:.4g}",
                f"{each.work.nbytes / 1e6:.4g}",
                f"{each.work.intensity:.3g}",
                _rate(each, each.before),
                _rate(each, each.after),
                escape(each.bound.bound.value),
            )
            for number, each in group
        ]
        headings = ("kernel", "MFLOP", "MB", "FLOP/byte", "GFLOP/s before", "GFLOP/s best", "bound by")
        parts.append(html_page.table(headings, rows, ["bound by"]))
    return parts


def _shares(tuning: Tuning) -> list[str]:
    totals = tuning.totals
    rows = [
        (
            _name(number, each),
            str(each.occurrences),
            microseconds(each.occurrences * each.before),
            f"{each.occurrences * each.before / totals.before:.1%}",
            microseconds(each.occurrences * each.after),
            f"{each.occurrences * each.after / totals.after:.1%}",
        )
        for number, each in tuning.shown
        if each.is_compared
    ]
    headings = ("kernel", "calls", "before, us", "share", "best, us", "share now")
    return [
        f"<p>{html_page.legend([('before', BEFORE), ('best', AFTER)])} All calls of each kernel.</p>",
        time_bars(tuning.shown),
        html_page.table(headings, rows),
    ]


def _calibration(tuning: Tuning) -> list[str]:
    rows = [
        (
            escape(each.model),
            str(sum(len(judged.measured) for judged in each.judgements)),
            _figure(each.rank_correlation),
            _figure(each.pairwise_accuracy),
            _times(each.typical_factor),
        )
        for each in tuning.calibrations
    ]
    charts = [calibration_chart(each, COLOURS[number]) for number, each in enumerate(tuning.calibrations)]
    return [
        "<p>Predicted beside measured seconds of every config that works. Ranks are Spearman's correlation within a kernel, over all of "
        "them the mean weighted by configs; pairs are the share of pairs, more than a tenth apart, in the right order, where a coin has "
        "0.5. The search needs only the order.</p>",
        f"<p>{''.join(charts)}</p>",
        html_page.table(("model", "configs", "ranks", "pairs", "typically off by"), rows),
        _calibration_by_kernel(tuning),
    ]


def _calibration_by_kernel(tuning: Tuning) -> str:
    judged = [{judgement.task.key: judgement for judgement in each.judgements} for each in tuning.calibrations]
    rows = []
    for number, each in tuning.shown:
        cells = [_name(number, each), str(len(each.standing))]
        for by_task in judged:
            if (found := by_task.get(each.task.key)) is not None:
                cells += [_figure(found.rank_correlation), _figure(found.right / found.pairs if found.pairs else math.nan)]
            else:
                cells += ["-", "-"]
        rows.append(cells)
    headings = ["kernel", "configs"]
    for calibration in tuning.calibrations:
        headings += [f"{calibration.model}: ranks", "pairs"]
    return html_page.table(headings, rows)


def _name(number: int, each: TaskHistory) -> str:
    return f"{number} {escape(label(each.task))}"


def _rate(each: TaskHistory, seconds: float) -> str:
    return f"{each.work.operations / seconds / 1e9:.4g}" if math.isfinite(seconds) and each.work.operations else "-"


def _speedup(each: TaskHistory) -> str:
    """A ratio of times that were not measured side by side is marked."""
    return f"{'' if each.is_side_by_side else '~'}{_times(each.before / each.after)}" if each.is_compared else "-"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if math.isfinite(ratio) else "-"


def _figure(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _date(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(timestamp))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _task_dict(each: TaskHistory) -> dict[str, Any]:
    return {
        "task": each.task.key,
        "label": label(each.task),
        "target": str(each.task.target),
        "occurrences": each.occurrences,
        "trials": each.trials,
        "failed": each.failed,
        "before_seconds": _finite(each.before),
        "best_seconds": _finite(each.after),
        "bound_seconds": each.bound.seconds,
        "side_by_side": each.is_side_by_side,
        "best": str(each.best.config) if each.best is not None else None,
    }
