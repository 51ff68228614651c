"""What importing the IR costs: names load their modules when first used, heavy libraries not before they are needed."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest

import mlc.ir

LIBRARIES = ("sympy", "scipy", "networkx", "ml_dtypes", "numpy", "mlc.ir.ops", "mlc.ir.parser")


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import mlc.ir.program", set()),
        ("import mlc.ir", set()),
        ("from mlc.ir.types import DType, TensorType", {"numpy"}),
        ("from mlc.ir import *", {"numpy", "networkx", "mlc.ir.ops", "mlc.ir.parser"}),
        (
            "from mlc.ir import parse; parse('graph @g(%x: f32[2]) { %y = relu(%x) : f32[2] return %y }')",
            {"numpy", "mlc.ir.ops", "mlc.ir.parser"},
        ),
    ],
)
def test_what_a_statement_loads(statement: str, loaded: set[str]) -> None:
    check = f"{statement}\nimport sys\nprint(*(name for name in {LIBRARIES!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == loaded


def test_every_public_name_resolves_and_is_listed_once() -> None:
    for name in mlc.ir.__all__:
        assert getattr(mlc.ir, name) is not None
    assert set(mlc.ir.__all__) == set(mlc.ir._HOME_OF)
    assert set(mlc.ir.__all__) <= set(dir(mlc.ir))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mlc.ir.nonsense  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are those that __getattr__ does."""
    import ast
    import pathlib

    assert mlc.ir.__file__ is not None
    tree = ast.parse(pathlib.Path(mlc.ir.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == mlc.ir._HOME_OF
    assert not typing.TYPE_CHECKING
