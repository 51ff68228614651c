"""Whole programs on disk, so that compiling a model again costs no more than tracing it.

A program is found by what it was made from: the text of the imported graph, which names its constants by hashes, the states, the options,
and the sources of mlc. In the cache folder (see :func:`~mlc.runtime.store.cache_folder`), under ``programs/``:

    <key>.program       one line of JSON: the program, the name and the hash of its library, the name of its weights
    <digest>.weights    packed constants, under the hash of their content: mapped, so that processes share them
    <key>.precision     what precision="auto" decided (:mod:`.precision_cache`)

Files are written under another name and renamed, so that processes may compile the same model at the same time and one that is killed
leaves nothing that another would read. Weights that were not used for longest go when there are more than :func:`capacity` allows.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import mmap
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .codegen.target import Kind
from .errors import Error
from .ir import Constant, print_graph
from .ir.program import Program
from .runtime.manifest import program_from_json, program_to_json
from .runtime.store import cache_folder, file_digest

if TYPE_CHECKING:
    from .codegen.assembly import Assembled
    from .frontend import Imported
    from .options import Options

PACKAGE = Path(__file__).resolve().parent
_ROOMS = ("ir", "frontend", "passes", "costmodel", "codegen", "autotune", "runtime")
_SOURCES = frozenset({".py", ".json", ".c", ".h"})
_SOFTWARE = ("apache-tvm", "apache-tvm-ffi", "xgboost-cpu", "numpy")
"""Distributions whose versions decide what is generated; not imported, since a program that is found needs none of them."""

_DEFAULT_CAPACITY = 4 << 30
_ABANDONED_SECONDS = 24 * 3600
"""The age at which no process still writes a file."""


def capacity() -> int:
    """The bytes of weights that are kept: $MLC_CACHE_BYTES, else 4 GiB. Of one program at most a quarter of them."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get("MLC_CACHE_BYTES", _DEFAULT_CAPACITY))
    return _DEFAULT_CAPACITY


def is_cacheable(options: Options) -> bool:
    """Whether what is compiled depends on nothing but the graph and options that have a text: no database, no passes of one's own, nobody
    who wants to watch, and no tool chain of another machine's, which may be missing or another one next time."""
    own = options.database is not None or options.pipeline is not None or options.instruments
    return options.target.kind is Kind.CPU and not own


def program_key(imported: Imported, states: Iterable[tuple[str, Constant]], options: Options, name: str, *, calibration: str = "") -> str:
    """The hash of everything that a program is made from; ``calibration`` that of its samples."""
    parts = [
        _software(),
        repr(options.target),
        str(options.target),
        str(options.threads),
        options.numerics.value,
        str(options.precision),
        calibration,
        str(options.sparsity),
        name,
        repr(imported.signature),
        repr([(state, constant.digest, str(constant.type)) for state, constant in states]),
        print_graph(imported.graph),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _software() -> str:
    digest = hashlib.sha256()
    files = [path for room in _ROOMS for path in (PACKAGE / room).rglob("*") if path.suffix in _SOURCES]
    for path in sorted([*files, *PACKAGE.glob("*.py")]):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    versions = []
    for distribution in _SOFTWARE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{distribution}-{importlib.metadata.version(distribution)}")
    return f"{' '.join(versions)} mlc-{digest.hexdigest()}"


def find_program(key: str) -> tuple[Program, Path, Any] | None:
    """The program, its library and its weights; None when there is none, or something of it is missing or damaged."""
    folder = programs_folder()
    try:
        entry = json.loads((folder / f"{key}.program").read_bytes())
        program = program_from_json(entry["program"])
        library = folder / entry["library"]
        if file_digest(library) != entry["library_sha256"]:
            library.unlink()  # its name says that it need not be linked again
            return None
        weights = None
        if entry["weights"] is not None:
            weights = _mapped(folder / f"{entry['weights']}.weights", program.constant_bytes)
            if weights is None:
                return None
        return program, library, weights
    except (OSError, ValueError, KeyError, TypeError, Error):
        return None


def keep_program(key: str, assembled: Assembled) -> None:
    """Stores what was assembled; a cache that cannot be written, or weights too large for it, are no error."""
    folder, program = programs_folder(), assembled.program
    if assembled.library.parent != folder or assembled.weights.nbytes > capacity() // 4:
        return
    entry = {
        "program": program_to_json(program),
        "library": assembled.library.name,
        "library_sha256": file_digest(assembled.library),
        "weights": hashlib.sha256(assembled.weights.data).hexdigest() if program.constant_bytes else None,
    }
    with contextlib.suppress(OSError):
        if entry["weights"] is not None:
            path = folder / f"{entry['weights']}.weights"
            if not path.is_file() or path.stat().st_size != assembled.weights.nbytes:
                write_whole(path, assembled.weights.data)
        # Last, so that what it names is there.
        write_whole(folder / f"{key}.program", json.dumps(entry).encode())
        _trim(folder)


def programs_folder() -> Path:
    """Where programs are, and what else is found by a program's key."""
    return cache_folder() / "programs"


def _mapped(path: Path, nbytes: int) -> np.ndarray | None:
    """The content of ``path``, mapped; None unless it has ``nbytes``. The file counts as used now."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != nbytes:
            return None
        with contextlib.suppress(OSError):  # another user's, say
            os.utime(path)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes a file that others see whole or not at all; OSError when that fails."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.replace(temporary, path)
        temporary = None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _trim(folder: Path) -> None:
    """Removes the weights that were not used for longest until the rest fits (who has them mapped keeps them), and what processes that
    were killed left half written."""
    for path in folder.glob(".new-*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()
    files: Sequence[tuple[float, int, Path]] = sorted(
        (status.st_mtime, status.st_size, path) for path in folder.glob("*.weights") for status in [path.stat()]
    )
    excess = sum(size for _, size, _ in files) - capacity()
    for _, size, path in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
