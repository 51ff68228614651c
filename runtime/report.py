"""Reports: what a compiled program consists of and where its time goes. As objects, as JSON-like data, as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..ir.program import Footprint


@dataclass(frozen=True)
class KernelReport:
    """One kernel call, with all the rounds in which it is made.

    ``flops`` and ``bytes`` are its work by the IR's cost model and ``seconds`` its time, each summed over the ``runs`` that a call of
    the program makes of it (one, where the rounds of a loop are not known beforehand). ``seconds`` None: not measured. ``precision`` names
    the modes of its encoded weights, in parentheses where it reads them decoded.
    """

    symbol: str
    label: str
    location: str
    task: str
    config: str
    flops: int
    bytes: int
    seconds: float | None = None
    runs: int = 1
    precision: str = ""

    @property
    def gflops(self) -> float | None:
        """Reached GFLOP/s."""
        return self.flops / self.seconds * 1e-9 if self.seconds else None

    @property
    def gbytes(self) -> float | None:
        """Reached GB/s."""
        return self.bytes / self.seconds * 1e-9 if self.seconds else None


@dataclass(frozen=True)
class FallbackReport:
    """An operation that PyTorch runs: how often the model uses it, the module and the source line of the first use, and why."""

    op: str
    uses: int
    module: str
    source: str
    reason: str

    def __str__(self) -> str:
        count = f"{self.uses} uses, first" if self.uses > 1 else "1 use,"
        where = f" in module '{self.module}'" if self.module else " in the model itself"
        return f"{self.op} ({count}{where}{', ' if self.source else ''}{self.source})\n  {self.reason}"


@dataclass(frozen=True)
class ProgramReport:
    """One compiled signature. Sizes in bytes; ``arena_lower_bound`` is the largest sum of buffers alive at once.

    ``fallback``: the operations that PyTorch runs; each stretch of such also has its row among the kernels."""

    name: str
    signature: str
    target: str
    threads: int
    arena_bytes: int
    arena_lower_bound: int
    weights_bytes: int
    kernels: tuple[KernelReport, ...]
    footprint: Footprint | None = None
    fallback: tuple[FallbackReport, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Sum of the kernels' times; None when they were not measured."""
        times = [kernel.seconds for kernel in self.kernels if kernel.seconds is not None]
        return sum(times) if len(times) == len(self.kernels) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data, derived figures included."""
        data = asdict(self)
        data["seconds"] = self.seconds
        if self.footprint is not None:
            data["footprint"] |= {"flash_bytes": self.footprint.flash_bytes, "ram_bytes": self.footprint.ram_bytes}
        data["kernels"] = [
            {**asdict(kernel), "share": self.share(kernel), "gflops": kernel.gflops, "gbytes": kernel.gbytes} for kernel in self.kernels
        ]
        return data

    def share(self, kernel: KernelReport) -> float | None:
        """The kernel's part of the measured time, 0 to 1."""
        total = self.seconds
        return kernel.seconds / total if total and kernel.seconds is not None else None

    def __str__(self) -> str:
        lines = [
            f"{self.name} {self.signature}",
            f"  target {self.target}, {self.threads} threads, {len(self.kernels)} kernels, weights {_size(self.weights_bytes)}, "
            f"arena {_size(self.arena_bytes)} (at least {_size(self.arena_lower_bound)})",
        ]
        if self.footprint is not None:
            lines.append(_footprint_line(self.footprint))
        measured = self.seconds is not None and bool(self.kernels)
        if measured:
            lines.append(f"  {(self.seconds or 0.0) * 1e6:.1f} us in kernels")
        rows: list[tuple[str, ...]] = [("kernel", "us", "share", "GFLOP/s", "GB/s", "MFLOP", "KB", "mode", "location")]
        order = sorted(self.kernels, key=lambda kernel: -(kernel.seconds or 0.0)) if measured else self.kernels
        for kernel in order:
            share = self.share(kernel)
            rows.append(
                (
                    kernel.label if kernel.runs == 1 else f"{kernel.runs} x {kernel.label}",
                    _number(kernel.seconds and kernel.seconds * 1e6, ".2f"),
                    _number(share and share * 100, ".1f", "%"),
                    _number(kernel.gflops, ".1f"),
                    _number(kernel.gbytes, ".1f"),
                    f"{kernel.flops * 1e-6:.3f}",
                    f"{kernel.bytes / 1024:.1f}",
                    kernel.precision,
                    kernel.location,
                )
            )
        if not measured:
            rows = [(row[0], *row[5:]) for row in rows]
        if not any(kernel.precision for kernel in self.kernels):
            rows = [(*row[:-2], row[-1]) for row in rows]
        fallback = [f"    {line}" for each in self.fallback for line in str(each).splitlines()]
        return "\n".join(lines + _table(rows) + ["  PyTorch runs:"] * bool(fallback) + fallback)


@dataclass(frozen=True)
class Report:
    """All compiled signatures of a model."""

    name: str
    programs: tuple[ProgramReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-like data."""
        return {"name": self.name, "programs": [program.to_dict() for program in self.programs], "fallback": list(self.fallback)}

    @property
    def fallback(self) -> tuple[str, ...]:
        """The names of the operations that PyTorch runs."""
        return tuple(dict.fromkeys(each.op for program in self.programs for each in program.fallback))

    def __str__(self) -> str:
        if not self.programs:
            return f"{self.name}: nothing compiled yet; call it once, or compile it with example_inputs"
        return "\n\n".join(map(str, self.programs))


def _footprint_line(footprint: Footprint) -> str:
    flash = f"flash {_size(footprint.flash_bytes)} (weights {_size(footprint.weights_bytes)}, code {_size(footprint.code_bytes)})"
    parts = f"arena {_size(footprint.arena_bytes)}, inputs and outputs {_size(footprint.io_bytes)}, stack {_size(footprint.stack_bytes)}"
    how = "as compiled" if footprint.measured else "code and stack estimated: there is no cross compiler"
    return f"  {flash}, RAM {_size(footprint.ram_bytes)} ({parts}); {how}"


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def _number(value: float | None, form: str, suffix: str = "") -> str:
    return "-" if value is None else format(value, form) + suffix


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns side by side: the first and the last to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
