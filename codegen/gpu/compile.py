"""From a device function to an object file: the image that the CUDA driver loads, and a C function that launches it.

The object defines ``int32_t symbol(void*, ...)`` like that of any kernel, over addresses in the device's memory. It calls
``mlc_cuda_launch`` (``codegen/native/cuda_launch.c``), which every library of a CUDA program links.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from ...errors import BuildError
from ..target import Target
from ..template import LoweredKernel
from .source import cuda_source


def cuda_object(lowered: LoweredKernel, symbol: str, target: Target) -> bytes:
    """The object file of a kernel for a GPU. BuildError when nvcc or the C compiler is missing or fails."""
    from ..build import c_compiler, run_tool

    assert lowered.launch is not None, "kernels of a GPU say how they are launched"
    with tempfile.TemporaryDirectory(prefix="mlc-") as name:
        folder = pathlib.Path(name)
        image = folder / "kernel.fatbin"
        image.write_bytes(compile_image(cuda_source(lowered.function, symbol), (target.mcpu,)))
        (folder / "kernel.c").write_text(_launcher(lowered, symbol, image))
        run_tool([c_compiler(), "-O1", "-c", "-fPIC", "-ffunction-sections", str(folder / "kernel.c"), "-o", str(folder / "kernel.o")])
        return (folder / "kernel.o").read_bytes()


def compile_image(source: str, architectures: Sequence[str]) -> bytes:
    """The fat binary of CUDA C++ ``source``: machine code for each of ``architectures``, and PTX of the first for later ones.

    Needs no GPU. BuildError, with nvcc's words, when it is missing or fails.
    """
    first = architectures[0].removeprefix("sm_")
    command = [nvcc(), "-fatbin", "-O3", "-w", f"-gencode=arch=compute_{first},code=compute_{first}"]
    command += [f"-gencode=arch=compute_{arch.removeprefix('sm_')},code={arch}" for arch in architectures]
    with tempfile.TemporaryDirectory(prefix="mlc-") as name:
        folder = pathlib.Path(name)
        (folder / "kernels.cu").write_text(source)
        command += [str(folder / "kernels.cu"), "-o", str(folder / "kernels.fatbin")]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"cannot run '{command[0]}' ({error})") from error
        if done.returncode != 0:
            raise BuildError(f"nvcc failed with code {done.returncode}:\n{(done.stderr or done.stdout).strip()[-4000:]}")
        return (folder / "kernels.fatbin").read_bytes()


@functools.cache
def nvcc() -> str:
    """NVIDIA's compiler: $NVCC, else the one on PATH, in /usr/local/cuda, or of the Python package ``nvidia-cuda-nvcc``."""
    candidates = [os.environ.get("NVCC"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        candidates += [str(path) for path in sorted(pathlib.Path(folder).glob("cu*/bin/nvcc"), reverse=True)]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise BuildError(
        "compiling for target 'cuda' needs NVIDIA's compiler nvcc, which is neither on PATH nor in /usr/local/cuda; install the CUDA "
        "toolkit or `pip install nvidia-cuda-nvcc`, or name the compiler in $NVCC"
    )


def _launcher(lowered: LoweredKernel, symbol: str, image: pathlib.Path) -> str:
    """C source of the function that launches a kernel whose image is in the file ``image``."""
    launch = lowered.launch
    assert launch is not None
    arguments = [f"a{number}" for number in range(len(lowered.function.params))]
    return f"""\
#include <stdint.h>

__asm__(".section .rodata\\n"
        ".balign 64\\n"
        "{symbol}_image:\\n"
        ".incbin \\"{image}\\"\\n"
        ".byte 0\\n"
        ".previous\\n");
extern const char {symbol}_image[] __attribute__((visibility("hidden")));

int32_t mlc_cuda_launch(const void* image, const char* name, void** loaded, uint32_t blocks, uint32_t threads, void** arguments);

int32_t {symbol}({", ".join(f"void* {name}" for name in arguments)}) {{
  static void* loaded;
  void* arguments[] = {{{", ".join(f"&{name}" for name in arguments)}}};
  return mlc_cuda_launch({symbol}_image, "{symbol}", &loaded, {launch.blocks}, {launch.threads}, arguments);
}}
"""
