"""Arm Cortex-M microcontrollers: 32-bit processors that run one thread out of a flash memory, without an operating system.

A target's text is the processor's name with ``-flash``, ``-ram`` (sizes with K or M) and ``-clock`` (MHz), such as
``cortex-m4 -flash=1M -ram=128K -clock=168``. Code for them is C99 (see ``codegen/c/``), so that the vendor's compiler can build it.
Sources: Arm's technical reference manuals. Memory sizes are those of common chips; give the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import TargetError
from ..target import Kind, Microcontroller, Target, TargetText

KIB = 1024
MIB = 1024 * KIB
_MHZ = 1_000_000


@dataclass(frozen=True)
class Processor:
    """One row of the table. ``features`` are LLVM's names; ``flags`` choose the processor for GCC.

    ``float_registers`` are the fp32 numbers that kernels may keep at hand; without an FPU, the general registers.
    """

    name: str
    features: tuple[str, ...]
    flags: tuple[str, ...]
    float_registers: int
    multiply_adds: int
    data_cache: int
    flash_bytes: int
    ram_bytes: int
    clock_mhz: int


_SINGLE = ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_SINGLE_V5 = ("-mfloat-abi=hard", "-mfpu=fpv5-sp-d16")
_DOUBLE_V5 = ("-mfloat-abi=hard", "-mfpu=fpv5-d16")

PROCESSORS: tuple[Processor, ...] = (
    Processor("cortex-m0plus", (), ("-mfloat-abi=soft",), 8, 1, 0, 256 * KIB, 32 * KIB, 48),
    Processor("cortex-m3", (), ("-mfloat-abi=soft",), 12, 1, 0, 512 * KIB, 64 * KIB, 72),
    Processor("cortex-m4", ("vfp4d16sp",), _SINGLE, 32, 1, 0, MIB, 256 * KIB, 120),
    Processor("cortex-m7", ("fp-armv8d16",), _DOUBLE_V5, 32, 1, 16 * KIB, 2 * MIB, 512 * KIB, 400),
    Processor("cortex-m33", ("fp-armv8d16sp",), _SINGLE_V5, 32, 1, 0, MIB, 256 * KIB, 150),
    Processor("cortex-m55", ("fp-armv8d16", "mve.fp"), ("-mfloat-abi=hard",), 32, 2, 32 * KIB, 2 * MIB, MIB, 400),
)
BY_NAME = {processor.name: processor for processor in PROCESSORS}


def takes(name: str) -> bool:
    """Whether ``name`` is this family's."""
    return name.startswith("cortex-m")


def parse(words: TargetText) -> Target:
    """The target; TargetError for a processor or an option that does not exist."""
    processor = BY_NAME.get(words.name)
    if processor is None:
        raise TargetError(f"no microcontroller is called '{words.name}' (known: {', '.join(BY_NAME)})")
    words.require_known("flash", "ram", "clock")
    frequency = float(words.count("clock", processor.clock_mhz)) * _MHZ
    return Target(
        kind=Kind.CORTEX_M,
        mcpu=processor.name,
        features=processor.features,
        threads=1,
        vector_bytes=4,
        vector_registers=processor.float_registers,
        fma_units=processor.multiply_adds,
        l1_bytes=processor.data_cache,
        l2_bytes=0,
        l3_bytes=0,
        frequency=frequency,
        memory_bandwidth=4.0 * frequency,
        device=Microcontroller(words.size("flash", processor.flash_bytes), words.size("ram", processor.ram_bytes)),
    )


def text(target: Target) -> str:
    """The text form, with every parameter."""
    assert isinstance(target.device, Microcontroller)
    clock = round(target.frequency / _MHZ)
    return f"{target.mcpu} -flash={_size(target.device.flash_bytes)} -ram={_size(target.device.ram_bytes)} -clock={clock}"


def listed() -> Sequence[Target]:
    """Every processor of the table, with its usual memories."""
    return tuple(parse(TargetText(name, name, {})) for name in BY_NAME)


def compiler_flags(target: Target) -> tuple[str, ...]:
    """What tells GCC which processor to compile for."""
    return (f"-mcpu={target.mcpu}", "-mthumb", *BY_NAME[target.mcpu].flags)


def _size(nbytes: int) -> str:
    for unit, symbol in ((MIB, "M"), (KIB, "K")):
        if nbytes % unit == 0:
            return f"{nbytes // unit}{symbol}"
    return str(nbytes)
