"""The programs of examples/ run as they stand."""

from __future__ import annotations

import pathlib
import runpy

import pytest

import mlc

EXAMPLES = sorted((pathlib.Path(mlc.__file__).parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capfd.readouterr().out.strip()
