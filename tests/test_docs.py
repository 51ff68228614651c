"""Every file and folder that the documents name exists."""

from __future__ import annotations

import pathlib
import re

import pytest

import mlc

ROOT = pathlib.Path(mlc.__file__).parent
EXAMPLES_OF_NAMES = {"my_model.py"}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_named_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.*]+\.(?:py|md|h|c)|(?:[\w.]+/)+(?:run)?)`", text)) - EXAMPLES_OF_NAMES
    assert named
    folders = [ROOT, *(ROOT / folder for folder in ("ir/ops", "tests/codegen"))]  # names given after their folder was
    missing = [name for name in sorted(named) if not any(any(folder.glob(name)) for folder in folders)]
    assert not missing
