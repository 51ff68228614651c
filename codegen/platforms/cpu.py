"""The target ``cpu``: this machine, or with ``-mcpu`` a processor of the table in :mod:`.x86`.

With ``-mcpu`` nothing of this machine is used except, without ``-threads``, its core count. Further options, all sizes in KiB:
``-l1``, ``-l2`` (per core), ``-l3`` (whole chip).
"""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import re
from collections.abc import Sequence
from dataclasses import fields, replace

from ...errors import TargetError
from ..target import Kind, Target, TargetText
from . import x86

_SIZE_OPTIONS = {"l1": "l1_bytes", "l2": "l2_bytes", "l3": "l3_bytes"}


def takes(name: str) -> bool:
    """Whether ``name`` is this family's."""
    return name == "cpu"


def parse(words: TargetText) -> Target:
    """The target; TargetError for a processor or an option that does not exist."""
    words.require_known("mcpu", "threads", *_SIZE_OPTIONS)
    target = _of_processor(words.options["mcpu"]) if "mcpu" in words.options else _host()
    sizes = {field: words.count(option, 1) * x86.KIB for option, field in _SIZE_OPTIONS.items() if option in words.options}
    return replace(target, threads=words.count("threads", target.threads), **sizes)  # type: ignore[arg-type]


def text(target: Target) -> str:
    """The text form: processor, threads, and what differs from the table."""
    text = f"{target.kind} -mcpu={target.mcpu} -threads={target.threads}"
    usual = x86.BY_NAME[target.mcpu]
    for option, field in _SIZE_OPTIONS.items():
        value = getattr(target, field)
        if value != getattr(usual, field):
            text += f" -{option}={value // x86.KIB}"
    return text


def listed() -> Sequence[Target]:
    """Every processor of the table."""
    return tuple(_of_processor(processor.mcpu) for processor in x86.PROCESSORS)


def _of_processor(name: str) -> Target:
    if name == "native":
        return _host()
    processor = x86.BY_NAME.get(name)
    if processor is None:
        raise TargetError(f"no processor is called '{name}' (known: native, {', '.join(x86.BY_NAME)})")
    facts = {field.name: getattr(processor, field.name) for field in fields(processor) if field.name != "vendor"}
    return Target(kind=Kind.CPU, threads=_cores(), **facts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _host() -> Target:
    """This machine; TargetError when it is no x86-64 Linux."""
    if platform.machine() not in ("x86_64", "AMD64"):
        raise TargetError(
            f"this machine is a {platform.machine()}: only x86-64 is supported yet; name a processor, such as 'cpu -mcpu=x86-64-v3'"
        )
    vendor, flags = host_features()
    target = _of_processor(x86.closest(vendor, flags).mcpu)
    caches = _host_caches()
    return replace(target, **caches)  # type: ignore[arg-type]


@functools.cache
def host_features() -> tuple[str, frozenset[str]]:
    """This machine's vendor and feature flags, by the names of /proc/cpuinfo; empty where that file is missing."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return "", frozenset()
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
    return vendor[1] if vendor else "", frozenset(flags[1].split()) if flags else frozenset()


def _host_caches() -> dict[str, int]:
    """Cache sizes in bytes as /sys tells them; levels it does not tell are missing."""
    found: dict[str, int] = {}
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and f"l{level}" in _SIZE_OPTIONS and size[:-1].isdigit() and size[-1] in "KM":
            found[_SIZE_OPTIONS[f"l{level}"]] = int(size[:-1]) * (x86.KIB if size[-1] == "K" else x86.MIB)
    return found
