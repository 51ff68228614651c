"""The families of targets: which module reads and prints the text form of which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import TargetError
from ..target import Kind, Target, TargetText
from . import cortex_m, cpu, cuda

_NOT_YET = ("rocm", "vulkan", "opencl", "metal", "webgpu", "wasm", "c", "riscv64", "aarch64", "neon")
_NOT_YET_PREFIXES = ("hexagon", "cortex-a")


class Family(Protocol):
    """What a module of this folder offers for its family of devices."""

    def takes(self, name: str) -> bool:
        """Whether the first word of a target's text names this family."""
        ...

    def parse(self, words: TargetText) -> Target:
        """The target; TargetError for a device or an option that does not exist."""
        ...

    def text(self, target: Target) -> str:
        """The text that :meth:`parse` reads back as the same target."""
        ...

    def listed(self) -> Sequence[Target]:
        """The family's targets, for people to choose from."""
        ...


FAMILIES: dict[Kind, Family] = {Kind.CPU: cpu, Kind.CORTEX_M: cortex_m, Kind.CUDA: cuda}


def family_of(kind: Kind) -> Family:
    """The family's module."""
    return FAMILIES[kind]


def family_named(words: TargetText) -> Family:
    """The family that takes a target's name; TargetError when none does."""
    for family in FAMILIES.values():
        if family.takes(words.name):
            return family
    if words.name in _NOT_YET or words.name.startswith(_NOT_YET_PREFIXES):
        raise TargetError(f"target '{words.name}' is not yet supported; use 'cpu', or one that 'mlc targets' lists")
    raise TargetError(f"'{words.text}' names no target that mlc knows; use 'cpu', or one that 'mlc targets' lists")
