"""Members are extracted as a whole and verified, however many chunks they have."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

from mlc.errors import ArtifactError
from mlc.runtime.store import extract

MEMBER = np.random.default_rng(0).integers(0, 256, (5 << 19) + 3, np.uint8).tobytes()
OFFSET = 77


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that holds MEMBER at OFFSET, and more behind it; the cache is the empty folder 'cache' next to it."""
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "archive"
    path.write_bytes(bytes(OFFSET) + MEMBER + bytes(50))
    return path


def extracted(archive: Path, member: bytes = MEMBER) -> Path:
    with archive.open("rb") as file:
        return extract(hashlib.sha256(member).hexdigest(), len(member), ".bin", file, OFFSET, rehash=False)


@pytest.mark.parametrize("nbytes", [0, 1, 1 << 20, (1 << 20) + 1, len(MEMBER)])
def test_a_member_is_what_is_at_its_offset(archive: Path, nbytes: int) -> None:
    assert extracted(archive, MEMBER[:nbytes]).read_bytes() == MEMBER[:nbytes]


@pytest.mark.parametrize("position", [0, (1 << 20) - 1, 1 << 20, len(MEMBER) - 1])
def test_an_edited_byte_of_any_chunk_is_noticed(archive: Path, position: int) -> None:
    content = bytearray(archive.read_bytes())
    content[OFFSET + position] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ArtifactError, match="does not have the hash"):
        extracted(archive)
    assert not [path for path in (archive.parent / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("nbytes", [0, 1, 1 << 20, len(MEMBER) - 1])
def test_a_member_that_ends_early_is_noticed(archive: Path, nbytes: int) -> None:
    archive.write_bytes(archive.read_bytes()[: OFFSET + nbytes])
    with pytest.raises(ArtifactError, match="does not have the hash"):
        extracted(archive)


def test_threads_extract_the_same_member_at_the_same_time(archive: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(extracted(archive))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 4
    assert [path.read_bytes() for path in found[0].parent.iterdir()] == [MEMBER]
