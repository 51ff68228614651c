"""Reports of earlier benchmarks, to go on with."""

from __future__ import annotations

import json
import pathlib

from ..errors import OptionError
from .report import Plan, Report


def earlier_report(path: pathlib.Path | None, plan: Plan) -> Report | None:
    """What an earlier run of the same systems left in ``path``, if anything."""
    if path is None:
        raise OptionError("--resume needs --save FILE, the file to go on with")
    if not path.exists():
        return None
    try:
        report = Report.from_dict(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"'{path}' is no report that this version of mlc bench wrote; choose another file") from error
    if (report.plan.systems, report.plan.threads, report.plan.ours) != (plan.systems, plan.threads, plan.ours):
        raise OptionError(
            f"'{path}' is of other systems or threads, or of another precision or database; choose another file, or leave out --resume"
        )
    return report
