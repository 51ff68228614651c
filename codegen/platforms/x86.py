"""x86-64 processors: what LLVM calls them, the features they need, their vector units, caches and rates.

Feature names are those of ``flags`` in /proc/cpuinfo. ``fma_units`` counts multiply-adds of the *widest* vector that start each
cycle (Zen 4 splits 512-bit operations, hence 1). Frequencies and bandwidths are typical sustained figures, for cost models only.
Sources: the vendors' software optimisation guides and the LLVM processor tables.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Processor:
    """One row of the table; fields as in :class:`~..target.Target`. ``vendor`` '' fits any vendor's machine."""

    mcpu: str
    vendor: str
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    fma_units: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    frequency: float
    memory_bandwidth: float


_V1 = ("sse", "sse2")
_V2 = (*_V1, "cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2")
_V3 = (*_V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ICELAKE = (
    *_V4,
    *("adx", "avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq"),
    *("gfni", "vaes", "vpclmulqdq", "sha_ni", "rdpid"),
)
_ALDERLAKE = (*_V3, "adx", "gfni", "vaes", "vpclmulqdq", "sha_ni", "rdpid", "avx_vnni")
_ZEN = (*_V3, "adx", "sse4a", "sha_ni")
_ZEN3 = (*_ZEN, "vaes", "vpclmulqdq", "rdpid")
_ZEN4 = (*_ICELAKE, "sse4a", "avx512_bf16")
_ZEN5 = (*_ZEN4, "avx_vnni", "avx512_vp2intersect")

AMD = "AuthenticAMD"
INTEL = "GenuineIntel"

PROCESSORS: tuple[Processor, ...] = (
    Processor("znver5", AMD, _ZEN5, 64, 32, 2, 48 * KIB, MIB, 32 * MIB, 4.2e9, 60e9),
    Processor("znver4", AMD, _ZEN4, 64, 32, 1, 32 * KIB, MIB, 32 * MIB, 3.7e9, 40e9),
    Processor("znver3", AMD, _ZEN3, 32, 16, 2, 32 * KIB, 512 * KIB, 32 * MIB, 3.5e9, 40e9),
    Processor("znver2", AMD, (*_ZEN, "rdpid"), 32, 16, 2, 32 * KIB, 512 * KIB, 16 * MIB, 3.3e9, 35e9),
    Processor(
        "sapphirerapids", INTEL, (*_ICELAKE, "avx512_bf16", "avx512_fp16", "avx_vnni"), 64, 32, 2, 48 * KIB, 2 * MIB, 32 * MIB, 3.0e9, 50e9
    ),
    Processor("icelake-server", INTEL, _ICELAKE, 64, 32, 2, 48 * KIB, 1280 * KIB, 32 * MIB, 2.9e9, 40e9),
    Processor("cascadelake", INTEL, (*_V4, "adx", "avx512_vnni"), 64, 32, 2, 32 * KIB, MIB, 24 * MIB, 2.6e9, 35e9),
    Processor("skylake-avx512", INTEL, (*_V4, "adx"), 64, 32, 2, 32 * KIB, MIB, 24 * MIB, 2.5e9, 35e9),
    Processor("alderlake", INTEL, _ALDERLAKE, 32, 16, 2, 48 * KIB, 1280 * KIB, 24 * MIB, 4.0e9, 50e9),
    Processor("skylake", INTEL, (*_V3, "adx"), 32, 16, 2, 32 * KIB, 256 * KIB, 8 * MIB, 3.4e9, 25e9),
    Processor("haswell", INTEL, _V3, 32, 16, 2, 32 * KIB, 256 * KIB, 8 * MIB, 3.0e9, 20e9),
    Processor("x86-64-v4", "", _V4, 64, 32, 1, 32 * KIB, MIB, 16 * MIB, 2.8e9, 30e9),
    Processor("x86-64-v3", "", _V3, 32, 16, 2, 32 * KIB, 256 * KIB, 8 * MIB, 2.8e9, 25e9),
    Processor("x86-64-v2", "", _V2, 16, 16, 1, 32 * KIB, 256 * KIB, 8 * MIB, 2.8e9, 20e9),
    Processor("x86-64", "", _V1, 16, 16, 1, 32 * KIB, 256 * KIB, 8 * MIB, 2.8e9, 15e9),
)
"""Most capable first, so that the first one whose features a machine has is the one to generate code for."""

BY_NAME = {processor.mcpu: processor for processor in PROCESSORS}


def closest(vendor: str, flags: frozenset[str]) -> Processor:
    """The most capable processor of the table whose features are all among ``flags`` (names of /proc/cpuinfo)."""
    for processor in PROCESSORS:
        if processor.vendor in ("", vendor) and flags.issuperset(processor.features):
            return processor
    return PROCESSORS[-1]
