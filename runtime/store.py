"""The cache folder where the members of artifacts are extracted once, under the hash of their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

from ..errors import ArtifactError

_CHUNK = 1 << 18
"""Bytes that are copied at a time: few enough that they are still in a cache of the processor when they are hashed."""
_CHUNKS = 3
"""One is read, one is written and one is hashed."""


def cache_folder() -> Path:
    """``$MLC_CACHE_DIR``, else ``mlc`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    given = os.environ.get("MLC_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlc"


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(digest: str, nbytes: int, suffix: str, source: BinaryIO, offset: int, *, rehash: bool) -> Path:
    """The path of the content with this SHA-256 in the cache, written there first if need be, from the ``nbytes`` at ``offset`` of
    ``source``. ArtifactError when those are others, or when the cache cannot be written.

    Content is written under another name, verified and renamed, so that processes may do the same at the same time and a
    reader never sees a part. What is there already is verified by size, and with ``rehash`` by hash.
    """
    folder = cache_folder() / "artifacts" / digest[:2]
    path = folder / f"{digest}{suffix}"
    if path.is_file() and path.stat().st_size == nbytes and (not rehash or file_digest(path) == digest):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f"{digest[:8]}-", suffix=".part")
    except OSError as error:
        raise ArtifactError(f"the cache folder {folder} cannot be written ({error}); set MLC_CACHE_DIR to a folder of your own") from error
    try:
        with os.fdopen(descriptor, "wb") as target:
            source.seek(offset)
            found = _copy(source, target, nbytes)
        if found != digest:
            raise ArtifactError("a member of the artifact does not have the hash its manifest states; the file was damaged, get it again")
        os.chmod(temporary, 0o500 if suffix == ".so" else 0o400)
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error}); free some space or set MLC_CACHE_DIR to another folder") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return path


def _copy(source: BinaryIO, target: BinaryIO, nbytes: int) -> str:
    """Copies ``nbytes``, or as many as there are, and returns their hexadecimal SHA-256. A second thread hashes them meanwhile, which takes
    as long as the copy."""
    content = hashlib.sha256()
    free: SimpleQueue[bytearray] = SimpleQueue()
    copied: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()

    def hash_copied() -> None:
        while (chunk := copied.get()) is not None:
            buffer, length = chunk
            content.update(memoryview(buffer)[:length])
            free.put(buffer)

    for _ in range(_CHUNKS):
        free.put(bytearray(_CHUNK))
    hashing = Thread(target=hash_copied, name="mlc-hash")
    hashing.start()
    try:
        while nbytes > 0:
            buffer = free.get()
            length = source.readinto(memoryview(buffer)[: min(nbytes, _CHUNK)])  # type: ignore[attr-defined]
            if not length:
                break
            copied.put((buffer, length))
            target.write(memoryview(buffer)[:length])
            nbytes -= length
    finally:
        copied.put(None)
        hashing.join()
    return content.hexdigest()
