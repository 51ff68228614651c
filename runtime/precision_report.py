"""What ``precision="auto"`` decided for a model, layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerPrecision:
    """A layer, or several that are decided together, by the modules they belong to.

    ``error`` is the relative error of the whole model's results when this layer alone has its mode; ``seconds`` and ``fp32_seconds`` are
    predicted for one call.
    """

    modules: tuple[str, ...]
    parameters: int
    mode: str
    error: float
    seconds: float
    fp32_seconds: float


@dataclass(frozen=True)
class PrecisionReport:
    """The modes of a model's layers, and how they were verified.

    ``error`` is the worst relative error of the model's results with all of them, over ``samples`` samples of inputs, ``held_out`` of which
    had no part in the choice. ``note`` says what a user should know, such as why nothing was lowered. ``search_seconds`` were spent to find
    and to verify the modes; none where an earlier search had.
    """

    tolerance: float
    error: float
    samples: int
    held_out: int
    layers: tuple[LayerPrecision, ...]
    note: str = ""
    search_seconds: float = 0.0

    @property
    def modes(self) -> Mapping[str, int]:
        """How many layers have which mode, the most frequent first."""
        return dict(Counter(layer.mode for layer in self.layers).most_common())

    @property
    def seconds(self) -> float:
        """Predicted for all layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def fp32_seconds(self) -> float:
        """Predicted for all layers in fp32."""
        return sum(layer.fp32_seconds for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data, sums included."""
        return {**asdict(self), "modes": dict(self.modes), "seconds": self.seconds, "fp32_seconds": self.fp32_seconds}

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {mode}" for mode, count in self.modes.items()) or "no layers"
        held = f"{self.samples} samples, {self.held_out} of them held out"
        lines = [
            f"precision auto: {counts}; error {self.error:.1e} on {held}, tolerance {self.tolerance:.1e}",
            f"  layers predicted to take {1e6 * self.seconds:.1f} us, {1e6 * self.fp32_seconds:.1f} us in fp32",
        ]
        lines.append(f"  found in {self.search_seconds:.1f} s" if self.search_seconds else "  found by an earlier search")
        if self.note:
            lines.append(f"  note: {self.note}")
        names = [", ".join(layer.modules) or "(the model itself)" for layer in self.layers]
        width = min(max((len(name) for name in names), default=0), 60)
        lines.append(f"  {'layer':<{width}}  {'mode':<9}  {'error':>7}  {'us':>9}  {'fp32 us':>9}")
        for name, layer in zip(names, self.layers, strict=True):
            times = f"{1e6 * layer.seconds:>9.1f}  {1e6 * layer.fp32_seconds:>9.1f}"
            lines.append(f"  {name:<{width}}  {layer.mode:<9}  {layer.error:>7.1e}  {times}")
        return "\n".join(lines)
