"""NVIDIA GPUs: the target ``cuda``, with ``-arch`` (for which code is generated) and ``-board`` (whose rates are assumed).

``cuda`` alone is this machine's GPU, or where there is none an A100. ``cuda -arch=sm_90`` is the usual board of that architecture,
``cuda -board=h200`` one by name. Code for an architecture also runs on later ones, whose driver translates it.
Sources: NVIDIA's architecture white papers and the compute capability tables of the CUDA C++ programming guide. Clocks are boost clocks.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import TargetError
from ..target import Gpu, Kind, Target, TargetText

KIB = 1024
MIB = 1024 * KIB
WARP = 32


@dataclass(frozen=True)
class Architecture:
    """Limits of a compute capability, fp32 multiply-adds that a multiprocessor starts in a cycle as multiples of a warp, and the
    board that stands for it."""

    name: str
    shared_bytes_per_block: int
    threads_per_multiprocessor: int
    l1_bytes: int
    fma_warps: int
    board: str


@dataclass(frozen=True)
class Board:
    """Rates of one product. ``part`` is a part of the name that the driver gives it."""

    name: str
    part: str
    arch: str
    multiprocessors: int
    frequency: float
    memory_bandwidth: float
    l2_bytes: int


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("sm_75", 64 * KIB, 1024, 96 * KIB, 2, "t4"),
    Architecture("sm_80", 163 * KIB, 2048, 192 * KIB, 2, "a100"),
    Architecture("sm_86", 99 * KIB, 1536, 128 * KIB, 4, "rtx3090"),
    Architecture("sm_87", 163 * KIB, 1536, 192 * KIB, 4, "orin"),
    Architecture("sm_89", 99 * KIB, 1536, 128 * KIB, 4, "l40s"),
    Architecture("sm_90", 227 * KIB, 2048, 256 * KIB, 4, "h100"),
    Architecture("sm_100", 227 * KIB, 2048, 256 * KIB, 4, "b200"),
)

BOARDS: tuple[Board, ...] = (
    Board("t4", "T4", "sm_75", 40, 1.59e9, 320e9, 4 * MIB),
    Board("a100", "A100", "sm_80", 108, 1.41e9, 1935e9, 40 * MIB),
    Board("rtx3090", "RTX 3090", "sm_86", 82, 1.695e9, 936e9, 6 * MIB),
    Board("a10", "A10", "sm_86", 72, 1.695e9, 600e9, 6 * MIB),
    Board("orin", "Orin", "sm_87", 16, 1.3e9, 204e9, 4 * MIB),
    Board("l40s", "L40S", "sm_89", 142, 2.52e9, 864e9, 96 * MIB),
    Board("l4", "L4", "sm_89", 58, 2.04e9, 300e9, 48 * MIB),
    Board("rtx4090", "RTX 4090", "sm_89", 128, 2.52e9, 1008e9, 72 * MIB),
    Board("h100", "H100", "sm_90", 132, 1.98e9, 3350e9, 50 * MIB),
    Board("h200", "H200", "sm_90", 132, 1.98e9, 4800e9, 50 * MIB),
    Board("b200", "B200", "sm_100", 148, 1.965e9, 8000e9, 126 * MIB),
)

_ARCHITECTURE = {architecture.name: architecture for architecture in ARCHITECTURES}
_BOARD = {board.name: board for board in BOARDS}


def takes(name: str) -> bool:
    """Whether ``name`` is this family's."""
    return name == "cuda"


def parse(words: TargetText) -> Target:
    """The target; TargetError for an architecture, a board or an option that does not exist."""
    words.require_known("arch", "board")
    arch, board = words.options.get("arch"), words.options.get("board")
    if arch is not None and arch not in _ARCHITECTURE:
        raise TargetError(f"target '{words.text}': no architecture is called '{arch}' (known: {', '.join(_ARCHITECTURE)})")
    if board is not None and board not in _BOARD:
        raise TargetError(f"target '{words.text}': no board is called '{board}' (known: {', '.join(_BOARD)})")
    if arch is None and board is None:
        arch, board = present() or ("sm_80", None)
    chosen = _BOARD[board] if board is not None else _BOARD[_ARCHITECTURE[str(arch)].board]
    architecture = _ARCHITECTURE[arch or chosen.arch]
    return Target(
        kind=Kind.CUDA,
        mcpu=architecture.name,
        features=(),
        threads=chosen.multiprocessors,
        vector_bytes=4 * WARP,
        vector_registers=255,
        fma_units=architecture.fma_warps,
        l1_bytes=architecture.l1_bytes,
        l2_bytes=0,
        l3_bytes=chosen.l2_bytes,
        frequency=chosen.frequency,
        memory_bandwidth=chosen.memory_bandwidth,
        device=Gpu(chosen.name, WARP, architecture.shared_bytes_per_block, architecture.threads_per_multiprocessor),
    )


def text(target: Target) -> str:
    """The text form: architecture and board."""
    assert isinstance(target.device, Gpu)
    return f"cuda -arch={target.mcpu} -board={target.device.board}"


def listed() -> Sequence[Target]:
    """Every board of the table."""
    return tuple(parse(TargetText(f"cuda -board={board}", "cuda", {"board": board})) for board in _BOARD)


@functools.cache
def present() -> tuple[str, str | None] | None:
    """Architecture and board of this machine's first GPU; None without one. A newer architecture than any known is the newest
    known one, an unknown board None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    # 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
        or driver.cuDeviceGetName(name, len(name), device)
    )
    if failed:
        return None
    own = 10 * major.value + minor.value
    older = [architecture.name for architecture in ARCHITECTURES if int(architecture.name[3:]) <= own]
    known = name.value.decode(errors="replace")
    # The longest part first: an A100 is no A10.
    boards = sorted((board for board in BOARDS if board.part in known), key=lambda board: -len(board.part))
    return (older[-1], boards[0].name if boards else None) if older else None
