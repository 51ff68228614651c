"""What compression did to a model: layer by layer, as data and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One linear layer.

    ``form`` is what it became, such as ``low-rank 64`` or ``monarch 16x16 rank 2``, or ``dense`` where it was left alone; ``reason`` says
    why then. ``error`` is the relative error of its results without the bias (Frobenius norm), ``seconds`` predicted for one call of
    ``rows`` rows.
    """

    path: str
    form: str
    error: float
    parameters_before: int
    parameters_after: int
    rows: int
    seconds_before: float
    seconds_after: float
    reason: str = ""


@dataclass(frozen=True)
class CompressionReport:
    """All linear layers. ``model_error`` is the relative error of the whole model's outputs on the calibration inputs, None without
    those."""

    target: str
    threads: int
    bound: float
    layers: tuple[LayerReport, ...]
    model_error: float | None = None

    @property
    def parameters_before(self) -> int:
        return sum(layer.parameters_before for layer in self.layers)

    @property
    def parameters_after(self) -> int:
        return sum(layer.parameters_after for layer in self.layers)

    @property
    def seconds_before(self) -> float:
        return sum(layer.seconds_before for layer in self.layers)

    @property
    def seconds_after(self) -> float:
        return sum(layer.seconds_after for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data, sums included."""
        sums = ("parameters_before", "parameters_after", "seconds_before", "seconds_after")
        return {**asdict(self), **{name: getattr(self, name) for name in sums}}

    def __str__(self) -> str:
        lines = [
            f"{'layer':<40} {'form':<24} {'error':>8} {'parameters':>22} {'predicted us':>18}",
            *(_line(layer) for layer in self.layers),
            f"linear layers: {self.parameters_before} parameters -> {self.parameters_after}, predicted "
            f"{1e6 * self.seconds_before:.1f} us -> {1e6 * self.seconds_after:.1f} us for '{self.target}' on {self.threads} threads",
        ]
        if self.model_error is not None:
            lines.append(f"relative error of the model's outputs on the calibration inputs: {self.model_error:.2e}")
        return "\n".join(lines)


def _line(layer: LayerReport) -> str:
    counts = f"{layer.parameters_before} -> {layer.parameters_after}"
    times = f"{1e6 * layer.seconds_before:.1f} -> {1e6 * layer.seconds_after:.1f}"
    return f"{layer.path:<40} {layer.form:<24} {layer.error:8.1e} {counts:>22} {times:>18}  {layer.reason}".rstrip()
