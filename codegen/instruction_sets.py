"""Which narrow numbers a target has instructions to multiply."""

from __future__ import annotations

from .target import Target


def multiplies_bytes(target: Target) -> bool:
    """Products of unsigned and signed bytes, summed in 32 bits, on its widest vectors (VNNI)."""
    wanted = {64: "avx512_vnni", 32: "avx_vnni"}
    return wanted.get(target.vector_bytes, "") in target.features


def multiplies_bf16(target: Target) -> bool:
    """Products of bfloat16, summed in fp32, on its widest vectors, at more than the rate of fp32.

    Zen multiplies twice as many of them; a Sapphire Rapids, whose own way are tiles (AMX), was measured to multiply half as many.
    """
    return "avx512_bf16" in target.features and target.vector_bytes == 64 and target.mcpu.startswith("znver")


def rounds_bf16(target: Target) -> bool:
    """Rounds vectors of any number of lanes to bfloat16 (vcvtneps2bf16)."""
    return {"avx512_bf16", "avx512vl"} <= set(target.features)


def sums_bytes_in_16_bits(target: Target) -> bool:
    """Products of unsigned and signed bytes, pairs summed in 16 bits (vpmaddubsw), on its widest vectors, and nothing better."""
    wanted = {32: "avx2", 64: "avx512bw"}
    return wanted.get(target.vector_bytes, "") in target.features and not multiplies_bytes(target)


def multiplies_int16(target: Target) -> bool:
    """Products of pairs of 16-bit integers, summed in 32 bits, on its widest vectors."""
    wanted = {16: "sse2", 32: "avx2", 64: "avx512bw"}
    return wanted.get(target.vector_bytes, "") in target.features
