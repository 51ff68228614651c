"""What a C program takes up on a microcontroller: flash and RAM, measured by a cross compiler where there is one, else estimated."""

from __future__ import annotations

import math
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

from ...errors import CapacityError
from ...ir import DType
from ...ir.program import Footprint, Signature
from ..build import run_tool
from ..platforms.cortex_m import compiler_flags
from ..target import Microcontroller, Target
from .kernel import CKernel
from .program import CONSTANTS, PLACEHOLDER, CSources

_FRAME_BYTES = 160
"""Stack that registers and calls take, from the caller's to the innermost function of the C library."""

_CODE_BYTES = 200
_BYTES_PER_OPERATOR = 5.0
"""Size of compiled code, per operator or access in the source (measured on Cortex-M4), and of the entry."""


def cross_compiler() -> str | None:
    """The cross compiler for Arm: $MLC_ARM_CC, else ``arm-none-eabi-gcc`` if it is installed."""
    return os.environ.get("MLC_ARM_CC") or shutil.which("arm-none-eabi-gcc")


def footprint(sources: CSources, kernels: Mapping[str, CKernel], arena_bytes: int, signature: Signature, target: Target) -> Footprint:
    """Flash and RAM of a program. Its code does not include what it links of the C library (some hundred bytes of <math.h>)."""
    compiler = cross_compiler()
    if compiler is not None:
        code, stack = _compiled(compiler, sources, target)
    else:
        operators = sum(len(re.findall(r"[-+*/?\[]", kernel.text)) for kernel in kernels.values())
        code = _CODE_BYTES + round(_BYTES_PER_OPERATOR * operators)
        stack = _FRAME_BYTES + max((kernel.stack_bytes for kernel in kernels.values()), default=0)
    specs = (*signature.inputs, *signature.outputs)
    return Footprint(
        code_bytes=code,
        weights_bytes=sum(constant.nbytes for constant in sources.constants),
        arena_bytes=arena_bytes,
        stack_bytes=stack,
        io_bytes=sum(DType.parse(spec.dtype).nbytes * math.prod(spec.static_shape) for spec in specs),
        measured=compiler is not None,
    )


def require_capacity(needed: Footprint, target: Target) -> None:
    """CapacityError, with what is missing, when a program does not fit the target's flash or RAM."""
    assert isinstance(target.device, Microcontroller)
    flash, ram = target.device.flash_bytes, target.device.ram_bytes
    problems = []
    if needed.flash_bytes > flash:
        parts = f"weights {needed.weights_bytes}, code {needed.code_bytes}"
        problems.append(f"{needed.flash_bytes} bytes of flash ({parts}), {needed.flash_bytes - flash} more than the {flash} there are")
    if needed.ram_bytes > ram:
        parts = f"arena {needed.arena_bytes}, inputs and outputs {needed.io_bytes}, stack {needed.stack_bytes}"
        problems.append(f"{needed.ram_bytes} bytes of RAM ({parts}), {needed.ram_bytes - ram} more than the {ram} there are")
    if problems:
        raise CapacityError(
            f"the model does not fit '{target}': it needs {' and '.join(problems)}; give the chip's real memories with -flash= and -ram=, "
            "or compile a smaller model or batch"
        )


def _compiled(compiler: str, sources: CSources, target: Target) -> tuple[int, int]:
    """(bytes of code, bytes of stack) of the program without its weights."""
    weights = "\n".join(f"extern const {constant.type} {constant.name}[];" for constant in sources.constants)
    with tempfile.TemporaryDirectory(prefix="mlc-") as name:
        folder = pathlib.Path(name)
        for file, text in sources.files.items():
            (folder / file).write_text(text.replace(CONSTANTS, weights))
        command = [compiler, *compiler_flags(target), "-std=c99", "-O2", "-ffunction-sections", "-fstack-usage", "-c"]
        run_tool([*command, f"{folder}/{PLACEHOLDER}.c", "-o", f"{folder}/model.o"])
        tool = pathlib.Path(compiler)
        size = str(tool.with_name(tool.name.replace("gcc", "size"))) if tool.is_absolute() else tool.name.replace("gcc", "size")
        printed = subprocess.run([size, f"{folder}/model.o"], capture_output=True, text=True, check=True, timeout=60).stdout
        frames = [int(line.split("\t")[1]) for line in (folder / "model.su").read_text().splitlines()]
    code, data = (int(field) for field in printed.splitlines()[1].split()[:2])
    # The entry, the function that calls it, and the kernel with the largest frame are on the stack together.
    return code + data, _FRAME_BYTES + sum(sorted(frames)[-3:])
