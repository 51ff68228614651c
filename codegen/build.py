"""From a TIR function to a native object file, and from object files to a library; with an on-disk cache of objects.

Kernels are TIR functions whose parameters are pointers. They become plain C functions ``int32_t symbol(void*, ...)`` in
position-independent objects that need no TVM at run time (see ``native/stub.c`` for the two symbols they refer to).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import BuildError, TextFormError
from ..ir import Dim
from ..ir.expression import parse_expression
from .constant_layout import ConstantLayout, constant_layouts_document, constant_layouts_of
from .emit import vector_functions
from .space import Config
from .stack_alignment import with_aligned_stack
from .target import Kind, Target
from .task import Task
from .template import LoweredKernel, Template

PACKAGE = pathlib.Path(__file__).resolve().parent
NATIVE = PACKAGE / "native"
ABI_INCLUDE = PACKAGE.parent / "runtime" / "native"
"""Folder of mlc_abi.h, which the runtime owns."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def cache_directory() -> pathlib.Path:
    """Where compiled objects are kept: $MLC_CACHE_DIR, else ``$XDG_CACHE_HOME/mlc``, else ``~/.cache/mlc``."""
    if directory := os.environ.get("MLC_CACHE_DIR"):
        return pathlib.Path(directory)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "mlc"


@functools.cache
def versions() -> str:
    """The software that determines generated code: TVM, LLVM, and a hash of the sources that generate it."""
    import tvm

    digest = hashlib.sha256()
    for folder in (PACKAGE, PACKAGE / "c", PACKAGE / "emit", PACKAGE / "gpu", PACKAGE / "templates"):
        for source in sorted(folder.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return f"tvm-{tvm.__version__} llvm-{tvm.target.codegen.llvm_version_major()} mlc-{digest.hexdigest()[:12]}"


def lower_module(function: Any, symbol: str, target: Target) -> tuple[Any, Any]:
    """The IRModule of ``function`` (over one-dimensional buffers only) after all TIR passes, and the TVM target it is bound to."""
    import tvm
    from tvm.tirx import transform

    device = tvm.target.Target(target.llvm)
    function = vector_functions.completed(function, target)
    function = function.with_attr({"global_symbol": symbol, "tirx.noalias": True})
    module = tvm.IRModule({symbol: function}).with_attr("system_lib_prefix", f"{symbol}_")
    passes = tvm.ir.transform.Sequential(
        [
            transform.BindTarget(device.with_host(device)),
            # No FlattenBuffer: all buffers are flat already, and it turns vector indices into sums that are no ramps, which the
            # code generator then accesses element by element. No StmtSimplify or common subexpression elimination: they substitute
            # bound variables, and the expressions of vector mathematics then grow exponentially. The emitter simplifies indices;
            # LLVM does the rest.
            transform.LowerIntrin(),
            transform.VectorizeLoop(),
            transform.UnrollLoop(),
        ]
    )
    with tvm.transform.PassContext(opt_level=3, config={"tirx.UnrollLoop": {"auto_max_step": 0, "explicit_unroll": True}}):
        return passes(module), device


def build_module(function: Any, symbol: str, target: Target) -> Any:
    """The TVM runtime module of LLVM code for ``function``; ``inspect_source("ll")`` or ``("asm")`` shows it."""
    import tvm

    try:
        module, device = lower_module(function, symbol, target)
        return with_aligned_stack(tvm.get_global_func("target.build.llvm")(module, device))
    except Exception as error:
        raise BuildError(f"LLVM code generation of kernel {symbol} for '{target}' failed: {error}") from error


def compile_object(function: Any, symbol: str, target: Target) -> bytes:
    """The object file of ``function`` as the C function ``symbol``. Releases the GIL: call it from several threads."""
    library = build_module(function, symbol, target)
    with tempfile.TemporaryDirectory(prefix="mlc-") as folder:
        path = os.path.join(folder, "kernel.o")
        library.write_to_file(path, "o")
        return pathlib.Path(path).read_bytes()


def kernel_object(lowered: LoweredKernel, symbol: str, target: Target) -> bytes:
    """The object file that defines ``int32_t symbol(void*, ...)`` for the host of ``target``; BuildError when a tool fails."""
    if target.kind is Kind.CUDA:
        from .gpu.compile import cuda_object

        return cuda_object(lowered, symbol, target)
    return compile_object(lowered.function, symbol, target)


def host_sources(target: Target) -> dict[str, str]:
    """C sources (name -> text) that programs for ``target`` link besides their entry."""
    return {"cuda_launch.c": (NATIVE / "cuda_launch.c").read_text()} if target.kind is Kind.CUDA else {}


@dataclass(frozen=True)
class CompiledKernel:
    """An object file that defines ``symbol``, and what a caller must know of the kernel (see :class:`LoweredKernel`).

    For microcontrollers the object is C source (``c/kernel.py``).
    """

    symbol: str
    object: bytes
    constant_layouts: Mapping[int, ConstantLayout]
    workspace_bytes: Dim


def compile_kernel(key: str, target: Target, lower: Callable[[], LoweredKernel], *, cached: bool = True) -> CompiledKernel:
    """Compiles what ``lower`` gives, or takes it from the cache.

    ``key`` must name everything that ``lower`` depends on (task, config, template revision); the versions of the software are
    added here. The kernel's symbol derives from both, so that objects of different kernels link together.
    """
    name = hashlib.sha256(f"{key}|{versions()}".encode()).hexdigest()[:32]
    symbol = f"mlc_{name}"
    folder = cache_directory() / "kernels" / name[:2]
    if cached and (found := _read(folder / name, symbol)) is not None:
        return found
    kernel = _compile(lower(), symbol, target)
    if cached:
        _write(folder / name, kernel)
    return kernel


def compile_candidate(task: Task, template: Template, config: Config) -> CompiledKernel:
    """The kernel of ``task`` by a ``config`` of ``template``, or from the cache: a candidate that was built while tuning is the one that a
    program gets. The task's key stands for its graph, target, threads and numerics."""
    return compile_kernel(f"{task.key}|{config}|{template.name}|{template.revision}", task.target, lambda: template.lower(task, config))


def _compile(lowered: LoweredKernel, symbol: str, target: Target) -> CompiledKernel:
    if target.kind is Kind.CORTEX_M:
        from .c.assembly import compile_source

        return compile_source(lowered, symbol)
    return CompiledKernel(symbol, kernel_object(lowered, symbol, target), dict(lowered.constant_layouts), lowered.workspace_bytes)


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item], jobs: int | None = None) -> list[Result]:
    """``function`` of each item, in order, on ``jobs`` threads (default: one per core); the first error is raised."""
    work = list(items)
    count = min(jobs or len(os.sched_getaffinity(0)), max(len(work), 1))
    if count == 1:
        return [function(item) for item in work]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, work))


def _read(path: pathlib.Path, symbol: str) -> CompiledKernel | None:
    """The cached kernel: one line of JSON, then the object. None when it is missing or damaged."""
    try:
        header, _, body = path.read_bytes().partition(b"\n")
        facts = json.loads(header)
        if hashlib.sha256(body).hexdigest() != facts["sha256"]:
            return None
        layouts = constant_layouts_of(facts["constant_layouts"])
        workspace = facts["workspace_bytes"]
        return CompiledKernel(
            symbol, body, layouts, workspace if isinstance(workspace, int) else parse_expression(workspace, TextFormError)
        )
    except (OSError, ValueError, KeyError, TypeError, TextFormError):
        return None


def _write(path: pathlib.Path, kernel: CompiledKernel) -> None:
    """Stores a kernel atomically; a cache that cannot be written is no error."""
    facts = {
        "sha256": hashlib.sha256(kernel.object).hexdigest(),
        "constant_layouts": constant_layouts_document(kernel.constant_layouts),
        "workspace_bytes": kernel.workspace_bytes if isinstance(kernel.workspace_bytes, int) else str(kernel.workspace_bytes),
    }
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            file.write(json.dumps(facts).encode() + b"\n" + kernel.object)
        os.replace(file.name, path)


def c_compiler() -> str:
    """The C compiler to use: $CC, else ``cc``."""
    return os.environ.get("CC") or "cc"


@functools.cache
def c_object(source: str, compiler: str) -> bytes:
    """The object file of a C source, which ``compiler`` compiles once in this process. BuildError, with its words, when it fails."""
    with tempfile.TemporaryDirectory(prefix="mlc-") as name:
        folder = pathlib.Path(name)
        (folder / "source.c").write_text(source)
        flags = ["-O2", "-fPIC", "-fvisibility=hidden", f"-I{ABI_INCLUDE}"]
        run_tool([compiler, *flags, "-c", str(folder / "source.c"), "-o", str(folder / "source.o")])
        return (folder / "source.o").read_bytes()


def link_library(objects: Sequence[bytes], sources: Mapping[str, str], exports: Sequence[str], output: pathlib.Path) -> None:
    """Links object files, C ``sources`` (name -> text) and the stub into the shared library ``output``.

    Only ``exports`` are visible. BuildError, with the compiler's words, when the tool chain is missing or fails.
    """
    with tempfile.TemporaryDirectory(prefix="mlc-") as name:
        folder = pathlib.Path(name)
        files = []
        for source_name, text in sources.items():
            (folder / source_name).write_text(text)
            files.append(str(folder / source_name))
        # A response file: thousands of objects would not fit a command line.
        linked = [c_object((NATIVE / "stub.c").read_text(), c_compiler()), *objects]
        for index, content in enumerate(linked):
            (folder / f"k{index}.o").write_bytes(content)
        arguments = folder / "objects"
        arguments.write_text("\n".join(f'"{folder}/k{index}.o"' for index in range(len(linked))))
        script = folder / "exports.map"
        script.write_text("{ global: " + " ".join(f"{symbol};" for symbol in exports) + " local: *; };\n")
        command = [c_compiler(), "-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{ABI_INCLUDE}", *files, f"@{arguments}"]
        command += ["-Wl,--gc-sections", f"-Wl,--version-script={script}", "-ldl", "-o", str(output)]
        run_tool(command)


def run_tool(command: Sequence[str]) -> None:
    """Runs a tool of the tool chain; BuildError with its output when it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"cannot run the C compiler '{command[0]}' ({error}); install one or name one in $CC") from error
    if done.returncode != 0:
        raise BuildError(f"'{command[0]}' failed with code {done.returncode}:\n{done.stderr.strip()[-4000:]}")
