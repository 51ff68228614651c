"""Targets: facts about the devices that code is generated for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Facts about a device, as a kernel generator and a cost model need them. ``str(target)`` parses back to the same target.

    ``vector_bytes`` is the widest vector register, ``vector_registers`` how many there are, ``fma_units`` how many vector
    multiply-adds start per cycle; cache sizes are bytes per core (``l3_bytes``: of the whole chip). ``peak_flops`` (fp32, one core)
    and ``memory_bandwidth`` (bytes per second, all cores) are estimates for the cost model.
    """

    kind: str
    mcpu: str
    features: tuple[str, ...]
    threads: int
    vector_bytes: int
    vector_registers: int
    fma_units: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    frequency: float
    memory_bandwidth: float

    @staticmethod
    def parse(text: str) -> Target:
        raise NotImplementedError
