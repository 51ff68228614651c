"""What the processor at hand can do."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from ..errors import DeviceUnavailableError


@cache
def cpu_features() -> frozenset[str] | None:
    """The names in /proc/cpuinfo's ``flags`` (x86) or ``Features`` (ARM); None where the system has no such file."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        return None
    return None


def require_features(features: Iterable[str], target: str) -> None:
    """DeviceUnavailableError that lists the ``features`` this processor lacks; where they cannot be read, all are assumed."""
    present = cpu_features()
    missing = sorted(set(features) - present) if present is not None else []
    if missing:
        raise DeviceUnavailableError(
            f"the program was compiled for '{target}' and needs CPU features that this machine lacks: {', '.join(missing)}; "
            "run it on a machine that has them, or compile it with target='cpu' here"
        )
