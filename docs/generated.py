"""Writes a generated page, or with ``--check`` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(path: Path, text: str, generator: str) -> int:
    """The exit code of the script ``generator``: 1 when ``--check`` is given and ``path`` does not hold ``text``."""
    if "--check" not in sys.argv:
        path.write_text(text, encoding="utf-8")
        return 0
    current = path.exists() and path.read_text(encoding="utf-8") == text
    if not current:
        print(f"{path.name} is out of date; run: python {generator}", file=sys.stderr)
    return 0 if current else 1
