"""Decisions of ``precision="auto"`` on disk, beside the programs, so that a model is searched once.

A decision is found by what it was made from: everything that a program's key holds, the tolerance, and the samples. In the folder of
:mod:`.program_cache`, ``<key>.precision`` is one line of JSON: the mode of each module, and the report.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .calibration import FlatSamples, digest
from .codegen.precision import Precision
from .program_cache import is_cacheable, program_key, programs_folder, write_whole
from .runtime.precision_report import LayerPrecision, PrecisionReport

if TYPE_CHECKING:
    from .frontend import Imported
    from .options import Options


@dataclass(frozen=True)
class Decision:
    """The modes of a model's modules, and the report on how they were found."""

    precision: Precision
    report: PrecisionReport


def decision_key(imported: Imported, options: Options, name: str, tolerance: float, calls: Iterable[FlatSamples]) -> str | None:
    """The hash of everything that a decision is made from; None where it is not kept. ``calls`` are the samples that calibrate, and those
    that only judge."""
    if not is_cacheable(options):
        return None
    samples = " ".join(map(digest, calls))
    states = [(state.name, state.initial) for state in imported.states]
    return program_key(imported, states, options, name, calibration=f"auto {tolerance!r} {bool(options.calibration)} {samples}")


def find_decision(key: str | None) -> Decision | None:
    """The decision, whose report says that no search was needed; None when there is none, or it is damaged."""
    if key is None:
        return None
    try:
        entry = json.loads(_path(key).read_bytes())
        layers = tuple(LayerPrecision(**{**layer, "modules": tuple(layer["modules"])}) for layer in entry["report"].pop("layers"))
        report = replace(PrecisionReport(layers=layers, **entry["report"]), search_seconds=0.0)
        rules = Precision.of({str(module): str(mode) for module, mode in entry["modes"]})
        return Decision(rules, report)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_decision(key: str | None, decision: Decision) -> None:
    """Stores a decision; a cache that cannot be written is no error."""
    if key is None:
        return
    entry = {"modes": decision.precision.rules, "report": asdict(decision.report)}
    with contextlib.suppress(OSError):
        programs_folder().mkdir(parents=True, exist_ok=True)
        write_whole(_path(key), json.dumps(entry).encode())


def _path(key: str) -> Path:
    return programs_folder() / f"{key}.precision"
