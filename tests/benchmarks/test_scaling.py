"""The benchmark of measuring with several workers, on this machine's own."""

from __future__ import annotations

import json
import pathlib

import pytest

from mlc.benchmarks import scaling


def test_rates_and_parts_are_reported(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = (scaling.Kind("small", lambda number: (8 + number, 32, 16)), scaling.Kind("large", lambda number: (8 + number, 128, 256)))
    monkeypatch.setattr(scaling, "KINDS", kinds)
    monkeypatch.setattr(scaling, "WORKERS", (1,))
    monkeypatch.setattr(scaling, "BATCH", 2)
    path = tmp_path / "scaling.json"
    assert scaling.main(["--systems", "local", "--seconds", "0.1", "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    assert [(cell["system"], cell["workers"], cell["kind"]) for cell in document["cells"]] == [("local", 1, "small"), ("local", 1, "large")]
    assert all(cell["rate"] > 0 for cell in document["cells"])
    small, large = document["parts"]
    assert large["case_bytes"] > 10 * small["case_bytes"]
    assert all(value > 0 for part in (small, large) for name, value in part.items() if name != "kind")
    assert "candidates per minute" in capsys.readouterr().out
