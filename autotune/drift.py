"""Times of several batches made comparable: a machine that others share is not equally fast all the time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ..codegen.record import Record
from ..codegen.space import Config


def as_before(records: Sequence[Record], held: Mapping[Config, float]) -> list[Record]:
    """The records of a batch, with times as they would have been when those of ``held`` (seconds of a call) were measured.

    Configs that are in both say by how much the machine has changed. What they agree on counts, the smallest of their changes, and none
    where some are faster and some slower: a single time may have been an accident.
    """
    changes = [
        math.log(held[record.config] / record.median)
        for record in records
        if record.times and math.isfinite(held.get(record.config, math.inf))
    ]
    if not changes or min(changes) < 0 < max(changes):
        return list(records)
    factor = math.exp(min(changes, key=abs))
    return [dataclasses.replace(record, times=tuple(time * factor for time in record.times)) for record in records]
