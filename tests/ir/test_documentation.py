"""docs/ir.md is what docs/generate.py writes."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

import mlc

GENERATE = pathlib.Path(mlc.__file__).parent / "docs" / "generate.py"


@pytest.mark.skipif(not GENERATE.exists(), reason="only a checkout has the documentation")
def test_the_page_of_the_ir_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(GENERATE), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
