"""A builder of kernels in C for `x + y` that are right or wrong in a known way; build workers load this file by its path."""

from __future__ import annotations

import os
import pathlib
import subprocess
from typing import Any

from mlc.autotune.building import BuiltKernel, entry_source
from mlc.codegen.build import ABI_INCLUDE
from mlc.codegen.space import Config

ELEMENTS = 1 << 16

RIGHT = {
    "plain": "for (long i = 0; i < N; i++) z[i] = x[i] + y[i];",
    "slow": "for (int r = 0; r < 20; r++) for (long i = 0; i < N; i++) ((volatile float*)z)[i] = x[i] + y[i];",
    "backwards": "for (long i = N; i-- > 0;) z[i] = y[i] + x[i];",
}
WRONG = {
    "crash": "((volatile float*)8)[0] = x[0];",
    "hang": "for (volatile int i = 0;; i++) {}",
    "constant": "for (long i = 0; i < N; i++) z[i] = 1;",
    "unwritten": "for (long i = 0; i < N - 1; i++) z[i] = x[i] + y[i];",
    "part": "for (long i = 0; i < N; i++) z[i] = i < N - N / 8 ? x[i] + y[i] : x[i];",
    "cached": "static float old[N]; static int done;"
    "for (long i = 0; i < N; i++) { if (!done) old[i] = x[i] + y[i]; z[i] = old[i]; } done = 1;",
    "beyond": "for (long i = 0; i < N + 16; i++) z[i] = i < N ? x[i] + y[i] : 0;",
    "code": "for (long i = 0; i < N; i++) z[i] = x[i] + y[i]; return 3;",
    "inputs": "for (long i = 0; i < N; i++) z[i] = x[i] + y[i]; x[5] = 0;",
    "imprecise": "for (long i = 0; i < N; i++) z[i] = (x[i] + y[i]) * 1.001f;",
    "one_element": "for (long i = 0; i < N; i++) z[i] = x[i] + y[i]; z[77] += 0.1f;",
    "unbuildable": "this is no C",
    "kills_builder": "",
}
NAMES = (*RIGHT, *WRONG)

_SOURCE = """
#define N {elements}L
int mlc_kernel(float* x, float* y, float* z) {{ {body} return 0; }}
"""


class PlantedBuilder:
    """Served by a build worker in place of the template builder."""

    def warm_up(self) -> None:
        pass

    def build(self, task: str, config: str, library: str) -> dict[str, Any]:
        name = NAMES[Config.parse(config)["kernel"]]
        if name == "kills_builder":
            os.abort()
        folder = pathlib.Path(library).parent
        kernel, entry = folder / f"{name}.c", folder / f"{name}_entry.c"
        kernel.write_text(_SOURCE.format(elements=ELEMENTS, body={**RIGHT, **WRONG}[name]))
        entry.write_text(entry_source(3, False))
        command = ["cc", "-O2", "-w", "-shared", "-fPIC", f"-I{ABI_INCLUDE}", str(kernel), str(entry), "-o", library]
        subprocess.run(command, check=True, capture_output=True)
        return BuiltKernel(pathlib.Path(library), 0, {}, "planted").document()
