"""ResNet-50 on this machine's CPU, checked against PyTorch: ``make demo``."""

from __future__ import annotations

import sys

from rich.console import Console

from . import machine, suite
from .progress import steps
from .report import Plan
from .tables import BUSY, table


def main() -> None:
    console = Console(stderr=True)
    with console.status("measuring what this machine can do"):
        here = machine.measure(machine.usable_cores())
    plan = Plan(("resnet50",), threads=here.threads, rounds=7)
    with steps(console, plan.steps_each) as progress:
        report = suite.run(plan, here, progress)
    Console().print(table(report))
    (comparison,) = report.comparisons
    if not comparison.sound("mlc"):
        sys.exit(1)
    ratio = comparison.speedup("mlc")
    error = comparison.timings["mlc"].error
    if here.busy > BUSY:
        print(f"ResNet-50: outputs agree to {error:.1e}; for figures that count, run this again on an idle machine.")
        return
    print(f"ResNet-50: mlc takes {1 / ratio:.2f} of PyTorch's time ({ratio:.2f}x as fast); outputs agree to {error:.1e}.")


if __name__ == "__main__":
    main()
