"""Building and calling exported C programs: natively, and on an emulated Cortex-M."""

from __future__ import annotations

import ctypes
import pathlib
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mlc
from mlc.codegen.platforms.cortex_m import compiler_flags
from mlc.codegen.target import Target
from mlc.runtime import Model

QEMU = pathlib.Path(__file__).parent / "qemu"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
BOARDS = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386", "cortex-m7": "mps2-an500"}

_NUMPY = {"f32": "float32", "f64": "float64", "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "u8": "uint8", "b1": "bool"}


@dataclass(frozen=True)
class Emulated:
    """What an emulated call gave: outputs, and a proxy for its instructions (QEMU counts 40 per tick of the board's timer)."""

    outputs: list[np.ndarray[Any, Any]]
    instructions: int


def run_native(compiled: Model, inputs: Sequence[np.ndarray[Any, Any]], folder: pathlib.Path) -> list[np.ndarray[Any, Any]]:
    """Exports, builds with this machine's compiler, warnings being errors, and calls ``model_run``."""
    compiled.export_c(folder, "model")
    library = folder / "model.so"
    _check_output(["cc", *WARNINGS, "-O1", "-ffp-contract=off", "-shared", "-fPIC", f"{folder}/model.c", "-o", str(library), "-lm"])
    outputs = _empty(compiled)
    arrays = [*inputs, *outputs]
    code = ctypes.CDLL(str(library)).model_run(*(ctypes.c_void_p(array.ctypes.data) for array in arrays))
    assert code == 0
    return outputs


def run_emulated(compiled: Model, inputs: Sequence[np.ndarray[Any, Any]], folder: pathlib.Path) -> Emulated:
    """Exports, cross-compiles and runs under QEMU on the board that has the target's processor."""
    compiled.export_c(folder, "model")
    target = Target.parse(compiled.executables[0].program.target)
    outputs = _empty(compiled)
    (folder / "harness.c").write_text(_harness(inputs, outputs))
    elf = folder / "model.elf"
    flags = [*compiler_flags(target), "-O2", "-ffp-contract=fast", "-ffunction-sections", "-fdata-sections", f"-I{QEMU}", f"-I{folder}"]
    sources = [f"{folder}/harness.c", f"{QEMU}/startup.c"]
    model = folder / "model.o"
    _check_output(["arm-none-eabi-gcc", *flags, *WARNINGS, "-c", f"{folder}/model.c", "-o", str(model)])
    link = ["-nostartfiles", f"-T{QEMU}/mps2.ld", "-Wl,--gc-sections", "--specs=nosys.specs"]
    _check_output(["arm-none-eabi-gcc", *flags, *sources, str(model), *link, "-o", str(elf), "-lm"])
    command = ["qemu-system-arm", "-M", BOARDS[target.mcpu], "-nographic", "-icount", "shift=0", "-kernel", str(elf)]
    printed = _check_output([*command, "-semihosting-config", "enable=on,target=native"])
    found = re.findall(r"^out (\w*)$", printed, re.MULTILINE)
    ticks = re.search(r"^ticks (\w{8})$", printed, re.MULTILINE)
    assert ticks is not None and len(found) == len(outputs), printed
    read = [np.frombuffer(bytes.fromhex(text), array.dtype).reshape(array.shape) for text, array in zip(found, outputs, strict=True)]
    return Emulated(read, 40 * int.from_bytes(bytes.fromhex(ticks[1]), "little"))


def _empty(compiled: Model) -> list[np.ndarray[Any, Any]]:
    """Poisoned outputs."""
    (signature,) = compiled.signatures
    return [np.full(spec.shape, 77).astype(_NUMPY[spec.dtype]) for spec in signature.outputs]


def _harness(inputs: Sequence[np.ndarray[Any, Any]], outputs: Sequence[np.ndarray[Any, Any]]) -> str:
    lines = ['#include "harness.h"', '#include "model.h"', ""]
    for number, array in enumerate(inputs):
        content = ", ".join(map(str, array.tobytes())) or "0"
        lines.append(f"static const uint8_t in{number}[] __attribute__((aligned(8))) = {{{content}}};")
    lines += [f"static uint64_t out{number}[{array.nbytes // 8 + 1}];" for number, array in enumerate(outputs)]
    pointers = [f"(const void*)in{number}" for number in range(len(inputs))] + [f"(void*)out{number}" for number in range(len(outputs))]
    lines += ["int32_t harness(void) {", "  start_clock();", "  const uint32_t begin = clock_ticks();"]
    lines += [f"  const int32_t code = model_run({', '.join(pointers)});", "  const uint32_t ticks = (clock_ticks() - begin) & 0xFFFFFFu;"]
    lines += [f'  print_words("out ", out{number}, {array.nbytes}u);' for number, array in enumerate(outputs)]
    lines += ['  print_words("ticks ", &ticks, 4u);', "  return code;", "}", ""]
    return "\n".join(lines)


def _check_output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr  # semihosting writes to the latter


def compiled_for(model: Any, inputs: Sequence[Any], target: str = "cortex-m4") -> mlc.CompiledModel:
    """``model`` compiled for a microcontroller."""
    return mlc.compile(model, example_inputs=tuple(inputs), target=target)
