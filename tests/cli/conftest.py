from __future__ import annotations

import pytest
from command_line import CommandLine


@pytest.fixture
def mlc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "200")
    return CommandLine(capsys)
