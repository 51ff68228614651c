"""Every file and folder that the documents name exists, and generated pages are up to date."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

import mlc

ROOT = pathlib.Path(mlc.__file__).parent
EXAMPLES_OF_NAMES = {"my_model.py"}


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/tuning.md", "docs/precision.md", "docs/sparsity.md"]
)
def test_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.*]+\.(?:py|md|h|c)|(?:[\w.]+/)+(?:run)?)`", text)) - EXAMPLES_OF_NAMES
    assert named
    folders = [ROOT, *(ROOT / folder for folder in ("ir/ops", "tests/codegen", "codegen/templates"))]  # names given after their folder was
    missing = [name for name in sorted(named) if not any(any(folder.glob(name)) for folder in folders)]
    assert not missing


_GENERATORS = ("generate", "results", "performance", "tuning_figures", "sparsity", "precision_figures")


@pytest.mark.parametrize("generator", [f"docs/{name}.py" for name in _GENERATORS])
def test_generated_pages_are_up_to_date(generator: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / generator), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
