"""mlc devices, and where mlc tune measures: what is refused, and with which remedy."""

from __future__ import annotations

import pathlib
import socket

import pytest
from command_line import CommandLine


@pytest.fixture
def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_a_tracker_that_is_not_there_is_named(mlc: CommandLine, nobody: str) -> None:
    done = mlc("devices", "list", "--tracker", nobody)
    assert done.code == 1
    assert f"no tracker answers at {nobody}" in done.err
    assert "mlc devices tracker" in done.err


@pytest.mark.parametrize("key", ["", "two words", "a:b"])
def test_keys_are_single_words(mlc: CommandLine, key: str) -> None:
    done = mlc("devices", "serve", "--key", key)
    assert done.code == 1
    assert "such as --key board" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rpc", "somewhere", "--rpc-key", "board"), "give HOST:PORT"),
        (("--rpc", "127.0.0.1:9190"), "--rpc needs --rpc-key"),
        (("--rpc-key", "board"), "add --rpc HOST:PORT"),
        (("--cluster", "spark"), "--cluster ray=ADDRESS"),
        (("--cluster", "ray=somewhere"), "give HOST:PORT"),
        (("--cluster", "ray", "--rpc", "127.0.0.1:9190"), "leave out --cluster or --rpc"),
    ],
)
def test_where_to_measure_is_checked(mlc: CommandLine, tmp_path: pathlib.Path, options: tuple[str, ...], message: str) -> None:
    model = tmp_path / "model.py"
    model.write_text("def make():\n    import torch\n    return torch.nn.Linear(4, 4), (torch.zeros(1, 4),)\n")
    done = mlc("tune", f"{model}:make", "--database", str(tmp_path / "t.db"), *options)
    assert done.code == 1
    assert message in done.err
