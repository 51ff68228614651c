"""What the linear layers of a model meet: how many rows a call gives each, and the second moment of their inputs."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..frontend.calibration import Batch, show_inputs


@dataclass
class Observation:
    """Of one layer: calls and rows seen so far, and the sum of x x^T (fp32), over the rows at even places to ``fit`` to and over those at
    odd ones to ``judge`` by; None where none was seen or asked for."""

    calls: int = 0
    rows: int = 0
    fit: Tensor | None = None
    judge: Tensor | None = None

    @property
    def rows_of_a_call(self) -> int:
        return max(1, round(self.rows / max(self.calls, 1)))

    def see(self, x: Tensor, with_moments: bool) -> None:
        rows = x.reshape(-1, x.shape[-1])
        if with_moments:
            # Where calls have one row each, those of every other call are for judging.
            begin = self.rows % 2
            self.fit = _added(self.fit, rows[begin::2].float())
            self.judge = _added(self.judge, rows[1 - begin :: 2].float())
        self.calls += 1
        self.rows += len(rows)


def _added(moment: Tensor | None, rows: Tensor) -> Tensor | None:
    if not len(rows):
        return moment
    square = rows.T @ rows
    return square if moment is None else moment.add_(square)


def observe(
    model: nn.Module, layers: Iterable[nn.Linear], batches: Sequence[Batch], *, with_moments: bool
) -> Mapping[nn.Linear, Observation]:
    """Runs the model on all batches. Layers that no call reaches have seen no rows."""
    seen = {layer: Observation() for layer in layers}
    show_inputs(model, batches, {layer: functools.partial(each.see, with_moments=with_moments) for layer, each in seen.items()})
    return seen
