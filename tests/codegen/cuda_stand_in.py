"""A CUDA driver for machines without a GPU: the program's host code runs as it is, its kernels run through OpenCL."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gpu_check import Launcher

from mlc.codegen.space import Config
from mlc.ir.program import Program
from mlc.options import check_options
from mlc.runtime import cuda_driver
from mlc.tuning import model_tasks

_LAUNCHER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p))


class StandIn:
    """The driver; ``launched`` are the names of the kernels that ran, in order."""

    def __init__(self, library: Path) -> None:
        self.launched: list[str] = []
        self.problems: list[BaseException] = []
        self._kernels: dict[str, tuple[Launcher, tuple[int, ...], int]] = {}
        self._callback = _LAUNCHER(self._launch)
        self._library = ctypes.CDLL(str(library))
        self._library.stand_in_set_launcher(self._callback)

    @property
    def allocated(self) -> int:
        """Pieces of device memory in use."""
        return int(self._library.stand_in_allocated())

    def know(self, program: Program, model: Any, inputs: Sequence[Any], target: str) -> None:
        """Makes the kernels of ``program`` known, lowered from the same tasks and configs once more."""
        tasks = {kernel.task.key: kernel for kernel in model_tasks(model, inputs, {}, check_options(target=target))}
        for call in program.calls:
            kernel = tasks[call.task]
            lowered = kernel.template.lower(kernel.task, Config.parse(call.config))
            sizes = tuple(argument.nbytes for argument in call.arguments)
            self._kernels[call.symbol] = Launcher(lowered), sizes, len(kernel.task.graph.outputs)

    def _launch(self, name: bytes, blocks: int, threads: int, arguments: Any) -> int:
        try:
            launcher, sizes, outputs = self._kernels[name.decode()]
            assert (blocks, threads) == (launcher.launch.blocks, launcher.launch.threads)
            arrays = []
            for number, nbytes in enumerate(sizes):
                address = ctypes.cast(arguments[number], ctypes.POINTER(ctypes.c_void_p))[0]
                arrays.append(np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address or 0)))
            launcher(arrays, outputs)
            self.launched.append(name.decode())
        except BaseException as error:  # an exception cannot cross the C code above
            self.problems.append(error)
            return 999
        return 0


@contextmanager
def cuda_stand_in(folder: Path) -> Iterator[StandIn]:
    """Puts the stand-in in the place of the CUDA driver, for programs loaded meanwhile."""
    library = folder / "libcuda-stand-in.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(Path(__file__).with_name("cuda_stand_in.c")), "-o", str(library)], check=True)
    before = os.environ.get("MLC_CUDA_DRIVER")
    os.environ["MLC_CUDA_DRIVER"] = str(library)
    cuda_driver.driver.cache_clear()
    cuda_driver.device.cache_clear()
    try:
        yield StandIn(library)
    finally:
        if before is None:
            del os.environ["MLC_CUDA_DRIVER"]
        else:
            os.environ["MLC_CUDA_DRIVER"] = before
        cuda_driver.driver.cache_clear()
        cuda_driver.device.cache_clear()
