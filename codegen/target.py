"""Targets: facts about the devices that code is generated for."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import re
from dataclasses import dataclass, fields, replace

from ..errors import TargetError
from .platforms import x86

_NOT_YET = ("cuda", "rocm", "vulkan", "opencl", "metal", "webgpu", "wasm", "c", "riscv64", "aarch64", "neon")
_NOT_YET_PREFIXES = ("cortex-", "hexagon")

_SIZE_OPTIONS = {"l1": "l1_bytes", "l2": "l2_bytes", "l3": "l3_bytes"}
_OPTIONS = ("mcpu", "threads", *_SIZE_OPTIONS)


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
        """The target of a text such as ``cpu``, ``cpu -mcpu=znver4 -threads=2``; TargetError when there is none.

        ``cpu`` alone is this machine. With ``-mcpu`` nothing of this machine is used except, without ``-threads``, its core count.
        Further options, all sizes in KiB: ``-l1``, ``-l2`` (per core), ``-l3`` (whole chip).
        """
        kind, options = _split(text)
        if kind in _NOT_YET or kind.startswith(_NOT_YET_PREFIXES):
            raise TargetError(f"target '{kind}' is not yet supported: this version compiles for x86 processors only; use target='cpu'")
        if kind != "cpu":
            raise TargetError(f"'{text}' names no target that mlc knows; use 'cpu' or 'cpu -mcpu=<processor> -threads=<count>'")
        target = _of_processor(options["mcpu"]) if "mcpu" in options else _host()
        changes: dict[str, int] = {}
        if "threads" in options:
            changes["threads"] = _positive(text, "threads", options["threads"])
        for option, field in _SIZE_OPTIONS.items():
            if option in options:
                changes[field] = _positive(text, option, options[option]) * x86.KIB
        return replace(target, **changes)  # type: ignore[arg-type]

    @property
    def peak_flops(self) -> float:
        """fp32 operations per second of one core, a multiply-add counting as two."""
        return 2.0 * (self.vector_bytes // 4) * self.fma_units * self.frequency

    @property
    def vector_lanes(self) -> int:
        """fp32 elements of a vector register."""
        return self.vector_bytes // 4

    @property
    def llvm(self) -> dict[str, str]:
        """The TVM target for LLVM code generation, as the dictionary that ``tvm.target.Target`` takes."""
        return {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": self.mcpu}

    def __str__(self) -> str:
        text = f"{self.kind} -mcpu={self.mcpu} -threads={self.threads}"
        usual = x86.BY_NAME[self.mcpu]
        for option, field in _SIZE_OPTIONS.items():
            value = getattr(self, field)
            if value != getattr(usual, field):
                text += f" -{option}={value // x86.KIB}"
        return text


def _split(text: str) -> tuple[str, dict[str, str]]:
    words = text.split()
    if not words:
        raise TargetError("the target is empty; use 'cpu' or 'cpu -mcpu=<processor> -threads=<count>'")
    options: dict[str, str] = {}
    for word in words[1:]:
        match = re.fullmatch(r"--?([a-z0-9]+)=(\S+)", word)
        if match is None:
            raise TargetError(f"'{word}' in target '{text}' is not of the form -option=value")
        if words[0] == "cpu" and match[1] not in _OPTIONS:
            raise TargetError(f"target '{text}': no option is called '{match[1]}' (known: {', '.join(_OPTIONS)})")
        options[match[1]] = match[2]
    return words[0], options


def _positive(text: str, option: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise TargetError(f"target '{text}': -{option} needs a whole number of at least 1, not '{value}'")
    return int(value)


def _of_processor(name: str) -> Target:
    if name == "native":
        return _host()
    processor = x86.BY_NAME.get(name)
    if processor is None:
        raise TargetError(f"no processor is called '{name}' (known: native, {', '.join(x86.BY_NAME)})")
    facts = {field.name: getattr(processor, field.name) for field in fields(processor) if field.name != "vendor"}
    return Target(kind="cpu", threads=_cores(), **facts)


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
