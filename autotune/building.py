"""Builds candidates: a task and a config become a shared library with a program entry for that one kernel."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from dataclasses import dataclass
from typing import Any

from ..codegen.build import ABI_INCLUDE, NATIVE, CompiledKernel, c_compiler, cache_directory, compile_candidate, run_tool, versions
from ..codegen.constant_layout import ConstantLayout, constant_layouts_document, constant_layouts_of
from ..codegen.space import Config
from ..codegen.task import Task

ENTRY = "mlc_entry"

_ENTRY_SOURCE = """\
#include "{stub}"
extern int32_t mlc_kernel({parameters});
__attribute__((visibility("default")))
int32_t {entry}(const mlc_context* context, void* const* io, const int64_t* dims, void* arena) {{
  (void)dims;
  (void)arena;
  mlc_current_context = context;
  return mlc_kernel({arguments});
}}
"""


@dataclass(frozen=True)
class BuiltKernel:
    """A library whose ``mlc_entry`` takes the task's inputs, then its outputs, and ``workspace_bytes`` of arena."""

    library: pathlib.Path
    workspace_bytes: int
    constant_layouts: dict[int, ConstantLayout]
    versions: str

    def document(self) -> dict[str, Any]:
        """As JSON for a pipe."""
        return {
            "library": str(self.library),
            "workspace_bytes": self.workspace_bytes,
            "constant_layouts": constant_layouts_document(self.constant_layouts),
            "versions": self.versions,
        }

    @staticmethod
    def of(document: dict[str, Any]) -> BuiltKernel:
        return BuiltKernel(
            pathlib.Path(document["library"]),
            document["workspace_bytes"],
            constant_layouts_of(document["constant_layouts"]),
            document["versions"],
        )


def entry_source(pointers: int, workspace: bool) -> str:
    """C source of a program entry that calls ``mlc_kernel`` with ``pointers`` inputs and outputs."""
    arguments = [f"io[{position}]" for position in range(pointers)] + ["arena"] * workspace
    parameters = ", ".join(["void*"] * len(arguments)) or "void"
    return _ENTRY_SOURCE.format(stub=NATIVE / "stub.c", entry=ENTRY, parameters=parameters, arguments=", ".join(arguments))


def candidate_kernel(task: Task, config: Config) -> CompiledKernel:
    """The compiled kernel of a candidate, from the cache if it was compiled before."""
    from ..codegen.templates import template_named

    return compile_candidate(task, template_named(config.template), config)


class TemplateBuilder:
    """Builds through the registered templates."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._frames: dict[tuple[int, bool], pathlib.Path] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mlc-build-")

    def warm_up(self) -> None:
        """Imports the tool chain, so that the first build is not timed out by it."""
        from ..codegen.templates import templates

        templates()
        versions()

    def build(self, task: str, config: str, library: str) -> dict[str, Any]:
        """Compiles ``config`` of the task with text ``task`` into the file ``library``; a :class:`BuiltKernel` as JSON."""
        if task not in self._tasks:
            self._tasks = {task: Task.parse(task)}
        parsed = self._tasks[task]
        kernel = candidate_kernel(parsed, Config.parse(config))
        pointers = len(parsed.graph.inputs) + len(parsed.graph.outputs)
        frame = self._frame(pointers, kernel.workspace_bytes > 0)
        kernel_file = pathlib.Path(self._folder.name) / "kernel.o"
        kernel_file.write_bytes(kernel.object)
        # One C compilation for all candidates of a task: the frame calls a name that the linker binds to the kernel's.
        run_tool([c_compiler(), "-shared", str(frame), str(kernel_file), f"-Wl,--defsym=mlc_kernel={kernel.symbol}", "-o", library])
        return BuiltKernel(pathlib.Path(library), kernel.workspace_bytes, dict(kernel.constant_layouts), versions()).document()

    def _frame(self, pointers: int, workspace: bool) -> pathlib.Path:
        """The compiled entry for kernels with so many parameters."""
        key = (pointers, workspace)
        if key not in self._frames:
            source = pathlib.Path(self._folder.name) / f"entry{pointers}{'w' * workspace}.c"
            source.write_text(entry_source(pointers, workspace))
            path = source.with_suffix(".o")
            run_tool([c_compiler(), "-O2", "-fPIC", "-fvisibility=hidden", f"-I{ABI_INCLUDE}", "-c", str(source), "-o", str(path)])
            self._frames[key] = path
        return self._frames[key]


def timing_library() -> pathlib.Path:
    """The library that times kernels (``native/measure.c`` with the runtime's thread pool), compiled once and cached.

    BuildError when there is no C compiler.
    """
    sources = [pathlib.Path(__file__).parent / "native" / "measure.c", ABI_INCLUDE / "threads.c"]
    headers = [ABI_INCLUDE / "threads.h", ABI_INCLUDE / "mlc_abi.h"]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in (*sources, *headers))).hexdigest()[:16]
    library = cache_directory() / f"measure-{digest}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            built = pathlib.Path(folder) / "measure.so"
            command = [c_compiler(), "-O2", "-std=gnu11", "-shared", "-fPIC", f"-I{ABI_INCLUDE}", *map(str, sources), "-pthread"]
            run_tool([*command, "-o", str(built)])
            os.replace(built, library)
    return library
