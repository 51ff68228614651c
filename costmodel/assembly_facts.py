"""What machine code tells of a kernel without running it: vector instructions, register spills in its innermost loops, size.

Read from the assembly that LLVM prints for x86-64 in AT&T syntax, and from the ELF object of the same kernel, so that no
disassembler is needed.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import CostModelError

_LABEL = re.compile(r"([.\w$]+):")
_JUMP = re.compile(r"j\w+\s+(\.L\w+)$")
_STACK = re.compile(r"(?:-?\d+)?\(%r(sp|bp)\)")
"""A slot of the stack. One with an index register is an element of an array that lies there, no spill."""
_SCALAR = re.compile(r"(?!vbroadcast)v?(?:mov[dq]|\w*s[sd]|\w*s[sd]2\w+|\w*2s[sd][lq]?|cvt\w*2si[lq]?)$")
"""Instructions that use one lane of an XMM register."""
_WRITES_NOTHING = ("cmp", "test", "vucomis", "ucomis", "push", "call", "vtestps", "vptest")

TEXT_SECTION = b".text"


@dataclass(frozen=True)
class KernelFacts:
    """Counts are of instructions in the code, not of executions. Spills are stores to and loads from the stack in innermost loops.

    ``code_bytes`` is the size of the section that holds the kernel's code.
    """

    instructions: int
    vector_instructions: int
    spill_stores: int
    spill_loads: int
    code_bytes: int

    @property
    def spills(self) -> int:
        return self.spill_stores + self.spill_loads


def kernel_facts(assembly: str, object_file: bytes) -> KernelFacts:
    """The facts of a kernel from its x86-64 assembly text and its object; CostModelError when either is something else."""
    functions = [function for function in _functions(assembly) if not function.name.startswith("__")]
    if not functions:
        raise CostModelError("the text is no x86-64 assembly of a kernel: it defines no function; labels are read for x86 targets only")
    stores, loads = (sum(counts) for counts in zip(*(_spills(function) for function in functions), strict=True))
    lines = [line for function in functions for line in function.lines if not _LABEL.match(line)]
    return KernelFacts(len(lines), sum(map(is_vector, lines)), stores, loads, text_bytes(object_file))


def innermost_loops(assembly: str) -> list[list[str]]:
    """The instructions of each innermost loop of the functions in x86-64 assembly text, in order."""
    return [
        [line for line in function.lines[begin : end + 1] if not _LABEL.match(line)]
        for function in _functions(assembly)
        for begin, end in _innermost_loops(function.lines)
    ]


def is_vector(instruction: str) -> bool:
    """Whether an instruction works on several lanes: on YMM or ZMM registers, or on a whole XMM register."""
    mnemonic, _, operands = instruction.partition(" ")
    if "%ymm" in operands or "%zmm" in operands:
        return True
    return "%xmm" in operands and not _SCALAR.match(mnemonic)


@dataclass(frozen=True)
class _Function:
    """Instructions and labels, without directives, in order. Whitespace in a line is one space."""

    name: str
    lines: tuple[str, ...]


def _functions(assembly: str) -> Iterator[_Function]:
    types = set(re.findall(r"\.type\s+([.\w$]+),\s*@function", assembly))
    name, lines = "", list[str]()
    for raw in assembly.splitlines():
        line = " ".join(raw.partition("#")[0].split())
        label = _LABEL.match(line)
        if label and label[1] in types:
            name, lines = label[1], []
        elif line.startswith(".size ") and name:
            yield _Function(name, tuple(lines))
            name = ""
        elif line and name and (label or not line.startswith(".")):
            lines.append(line)


def _spills(function: _Function) -> tuple[int, int]:
    """Stores and loads of stack slots in innermost loops."""
    bases = {"sp", "bp"} if "movq %rsp, %rbp" in function.lines else {"sp"}
    stores = loads = 0
    for line in itertools.compress(function.lines, _in_innermost_loop(function.lines)):
        slot = _STACK.search(line)
        if slot is None or slot[1] not in bases or line.startswith("lea"):
            continue
        # In AT&T syntax the destination comes last; an instruction of one operand, like incl, both reads and writes.
        is_last = slot.end() == len(line)
        mnemonic, _, operands = line.partition(" ")
        stores += is_last and not mnemonic.startswith(_WRITES_NOTHING)
        loads += not (is_last and mnemonic.startswith(("mov", "vmov")) and "," in operands)
    return stores, loads


def _in_innermost_loop(lines: Sequence[str]) -> list[bool]:
    """For each line whether it stands in an innermost loop."""
    inside = [False] * len(lines)
    for begin, end in _innermost_loops(lines):
        inside[begin : end + 1] = [True] * (end + 1 - begin)
    return inside


def _innermost_loops(lines: Sequence[str]) -> list[tuple[int, int]]:
    """The first and last lines of stretches between a label and a jump back to it, with no smaller such stretch inside."""
    labels = {match[1]: number for number, line in enumerate(lines) if (match := _LABEL.match(line))}
    ends: dict[int, int] = {}
    for number, line in enumerate(lines):
        jump = _JUMP.match(line)
        if jump and labels.get(jump[1], number) < number:
            ends[labels[jump[1]]] = number  # the last jump back closes the loop
    return [(begin, end) for begin, end in ends.items() if not any(begin < other and other_end < end for other, other_end in ends.items())]


def text_bytes(object_file: bytes) -> int:
    """Size of the code section of a 64-bit little-endian ELF object (see the System V ABI); CostModelError for anything else."""
    try:
        if object_file[:6] != b"\x7fELF\x02\x01":
            raise ValueError("it is no 64-bit ELF file")
        (table,) = struct.unpack_from("<Q", object_file, 0x28)
        entry, count, names = struct.unpack_from("<HHH", object_file, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", object_file, table + entry * number) for number in range(count)]
        strings = headers[names][4]
        for name, _, _, _, _, size in headers:
            begin = strings + name
            if object_file[begin : object_file.index(b"\0", begin)] == TEXT_SECTION:
                return int(size)
        raise ValueError("it has no code section")
    except (struct.error, IndexError, ValueError) as error:
        raise CostModelError(f"the size of a kernel cannot be read from its object file: {error}") from error
