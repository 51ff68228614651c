"""The import table of DESIGN ('Rooms, and who may import whom'), read off every import statement, lazy ones included."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import mlc

ROOT = pathlib.Path(mlc.__file__).parent
EVERYTHING = frozenset({"ir", "frontend", "codegen", "compression", "costmodel", "passes", "autotune", "runtime", "fuzz", "benchmarks", ""})

MAY_IMPORT: dict[str, frozenset[str]] = {
    "ir": frozenset(),
    "frontend": frozenset({"ir"}),
    "codegen": frozenset({"ir"}),
    "costmodel": frozenset({"ir", "codegen"}),
    "compression": frozenset({"ir", "frontend", "codegen", "costmodel"}),
    "passes": frozenset({"ir", "codegen", "costmodel"}),
    "autotune": frozenset({"ir", "codegen", "costmodel"}),
    "runtime": frozenset({"ir"}),
    "fuzz": EVERYTHING,
    "benchmarks": EVERYTHING,
    "": EVERYTHING,  # the files of the root
}
"""Room to the rooms it may import; every room may import itself and errors.py."""

RUNTIME_TAKES_OF_IR = frozenset({"ir.types", "ir.size", "ir.program"})
HEAVY = frozenset({"torch", "tvm", "tvm_ffi"})


@dataclass(frozen=True)
class Import:
    """``module`` is dotted, inside the package without the leading ``mlc.``; ``lazy`` when inside a function."""

    module: str
    internal: bool
    line: int
    lazy: bool

    @property
    def room(self) -> str:
        head = self.module.partition(".")[0]
        return head if head in MAY_IMPORT else ""


def imports_of(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """The imports of a file; ``module`` is its dotted name inside the package (``ir.graph``), empty for the root package."""
    tree = ast.parse(source)
    lazy = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    package = module.split(".") if module else []
    if not is_package:
        package = package[:-1]
    for node in ast.walk(tree):
        names: list[tuple[str, bool]] = []
        if isinstance(node, ast.Import):
            names = [_internal(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - (node.level - 1)]
                base += node.module.split(".") if node.module else []
                names = [(".".join([*base, alias.name]), True) for alias in node.names]
            else:
                names = [_internal(f"{node.module}.{alias.name}") for alias in node.names]
        for name, internal in names:
            yield Import(name, internal, node.lineno, id(node) in lazy)


def _internal(name: str) -> tuple[str, bool]:
    head, _, rest = name.partition(".")
    return (rest, True) if head == "mlc" else (name, False)


def rooms() -> set[str]:
    return {path.parent.name for path in ROOT.glob("*/__init__.py")}


def files(room: str) -> list[pathlib.Path]:
    return sorted((ROOT / room).rglob("*.py") if room else ROOT.glob("*.py"))


def violations(source: str, path: str) -> list[str]:
    """Broken rules of a file, given by its path relative to the root, as readable lines."""
    parts = path.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    room = parts[0] if len(parts) > 1 else ""
    found = []
    for item in imports_of(source, module, is_package):
        where = f"{path}:{item.line}"
        if item.internal:
            if path == "errors.py":
                found.append(f"{where}: errors.py imports nothing of the package")
            elif item.module.partition(".")[0] == "errors" or item.room == room:
                continue
            elif item.room not in MAY_IMPORT[room]:
                found.append(f"{where}: {room or 'the root'} may not import {item.module}")
            elif room == "runtime" and ".".join(item.module.split(".")[:2]) not in RUNTIME_TAKES_OF_IR:
                found.append(f"{where}: runtime takes only {', '.join(sorted(RUNTIME_TAKES_OF_IR))}, not {item.module}")
        elif item.module.partition(".")[0] in HEAVY and (room == "ir" or (room == "runtime" and not item.lazy)):
            found.append(f"{where}: {room} may not import {item.module}")
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_rooms_import_only_what_the_table_allows(room: str) -> None:
    broken = [line for path in files(room) for line in violations(path.read_text(), path.relative_to(ROOT).as_posix())]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/graph.py", "def f():\n    from ..passes import fuse"),
        ("ir/ops/reduction.py", "import torch"),
        ("frontend/export.py", "import mlc.codegen.task"),
        ("codegen/assembly.py", "from .. import passes"),
        ("runtime/loader.py", "from ..ir.graph import Graph"),
        ("runtime/loader.py", "import tvm_ffi"),
        ("errors.py", "from .ir import types"),
        ("passes/fuse.py", "from ..driver import compile"),
    ],
)
def test_the_check_finds_forbidden_imports(path: str, source: str) -> None:
    assert len(violations(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/ops/reduction.py", "from ..graph import Graph\nfrom ...errors import Error\nimport numpy"),
        ("passes/fuse.py", "from ..codegen import Target\nfrom .pipeline import Pass"),
        ("runtime/loader.py", "from ..ir.program import Program\nfrom ..ir import types\ndef f():\n    import torch"),
        ("driver.py", "from . import passes\nfrom .autotune import tune"),
    ],
)
def test_the_check_passes_allowed_imports(path: str, source: str) -> None:
    assert violations(source, path) == []


def test_every_room_stands_in_the_table() -> None:
    assert rooms() <= set(MAY_IMPORT)


def test_every_package_is_installed() -> None:
    """pyproject.toml lists packages by hand: one left out would be missing from a plain installation only."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    present = {".".join(["mlc", *path.parent.relative_to(ROOT).parts]) for room in rooms() for path in (ROOT / room).rglob("__init__.py")}
    assert set(listed) == present | {"mlc"}


def test_the_tests_are_no_package() -> None:
    """pytest would import the root a second time, under the name of the checkout's folder (see tests/pytest.ini)."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("statement", ["import mlc", "import mlc; mlc.load", "import mlc.runtime"])
def test_running_a_program_needs_neither_torch_nor_tvm(statement: str) -> None:
    check = f"{statement}\nimport sys\nprint(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
