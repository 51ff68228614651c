"""The programs of examples/ run as they stand."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

import mlc

EXAMPLES = sorted((pathlib.Path(mlc.__file__).parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
