"""Targets: facts about the devices that code is generated for. What is special about a family of devices is in ``platforms/``."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import TargetError


class Kind(enum.StrEnum):
    """The families of devices: how code for them is generated, built and run. The value names the family's cost model."""

    CPU = "cpu"
    CORTEX_M = "cortex-m"
    CUDA = "cuda"


@dataclass(frozen=True)
class Microcontroller:
    """What a program must fit into: bytes of flash (code and weights) and of RAM (arena, stack, inputs and outputs)."""

    flash_bytes: int
    ram_bytes: int


@dataclass(frozen=True)
class Gpu:
    """What kernels of a GPU must fit into: shared bytes that a block can have, threads that a multiprocessor can hold; its warps."""

    board: str
    warp: int
    shared_bytes_per_block: int
    threads_per_multiprocessor: int


@dataclass(frozen=True)
class Target:
    """Facts about a device, as a kernel generator and a cost model need them. ``str(target)`` parses back to the same target.

    ``vector_bytes`` is the widest vector register (one fp32 number where there are none), ``vector_registers`` how many there are,
    ``fma_units`` how many vector multiply-adds start per cycle; cache sizes are bytes per core (``l3_bytes``: of the whole chip), 0
    where there is none. ``peak_flops`` (fp32, one core) and ``memory_bandwidth`` (bytes per second, all cores) are estimates for the
    cost model. ``device`` holds the facts that only one family has. Of a GPU, cores are multiprocessors, vectors warps, the first-level
    cache holds shared memory, and the third level is the cache of the whole chip.
    """

    kind: Kind
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
    device: Microcontroller | Gpu | None = None

    @staticmethod
    def parse(text: str) -> Target:
        """The target of a text such as ``cpu``, ``cpu -mcpu=znver4 -threads=2``, ``cortex-m4 -ram=128K``, ``cuda -arch=sm_90``; TargetError
        when there is none.

        ``cpu`` alone is this machine's processor, ``cuda`` its GPU. The families' modules in ``platforms/`` say which options they take.
        """
        from .platforms.families import family_named

        words = TargetText.split(text)
        return family_named(words).parse(words)

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
        """The TVM target for LLVM code generation, as the dictionary that ``tvm.target.Target`` takes; TargetError but for CPUs."""
        if self.kind is not Kind.CPU:
            raise TargetError(f"there is no LLVM code generation for '{self}'; use target='cpu'")
        return {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": self.mcpu}

    def __str__(self) -> str:
        from .platforms.families import family_of

        return family_of(self.kind).text(self)


@dataclass(frozen=True)
class TargetText:
    """The words of a target's text: ``name -option=value ...``."""

    text: str
    name: str
    options: Mapping[str, str]

    @staticmethod
    def split(text: str) -> TargetText:
        """TargetError for words that are no options."""
        words = text.split()
        if not words:
            raise TargetError("the target is empty; use 'cpu' or 'cpu -mcpu=<processor> -threads=<count>'")
        options: dict[str, str] = {}
        for word in words[1:]:
            match = re.fullmatch(r"--?([a-z0-9]+)=(\S+)", word)
            if match is None:
                raise TargetError(f"'{word}' in target '{text}' is not of the form -option=value")
            options[match[1]] = match[2]
        return TargetText(text, words[0], options)

    def require_known(self, *known: str) -> None:
        """TargetError for an option that is not among ``known``."""
        for option in self.options:
            if option not in known:
                raise TargetError(f"target '{self.text}': no option is called '{option}' (known: {', '.join(known)})")

    def count(self, option: str, default: int) -> int:
        """The whole number of at least 1 given for ``option``, else ``default``."""
        value = self.options.get(option)
        if value is None:
            return default
        if not value.isdigit() or int(value) < 1:
            raise TargetError(f"target '{self.text}': -{option} needs a whole number of at least 1, not '{value}'")
        return int(value)

    def size(self, option: str, default: int) -> int:
        """The bytes given for ``option`` as a number with K or M (powers of 1024) or without, else ``default``."""
        value = self.options.get(option)
        if value is None:
            return default
        match = re.fullmatch(r"([1-9][0-9]*)([kKmM]?)", value)
        if match is None:
            raise TargetError(f"target '{self.text}': -{option} needs a size such as 256K or 1M, not '{value}'")
        return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]
