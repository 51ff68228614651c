"""The cache folder where the members of artifacts are extracted once, under the hash of their content."""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from io import BufferedReader, FileIO
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from ..errors import ArtifactError

_CHUNK = 1 << 20
"""Bytes that are copied and hashed at a time."""


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


def extract(digest: str, nbytes: int, suffix: str, source: BufferedReader, offset: int, *, rehash: bool) -> Path:
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
        with os.fdopen(descriptor, "w+b", buffering=0) as target:
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


def _copy(source: BufferedReader, target: FileIO, nbytes: int) -> str:
    """Copies ``nbytes``, or as many as there are, into the empty file ``target`` and returns the hexadecimal SHA-256 of what is there then.

    A second thread hashes what was copied, which takes as long as copying. It reads the pages of ``target`` and not a buffer, for which the
    copy would have to wait: threads that wake each other for every buffer are kept on one processor by Linux.
    """
    if nbytes == 0:
        return hashlib.sha256().hexdigest()
    target.truncate(nbytes)
    with mmap.mmap(target.fileno(), nbytes, access=mmap.ACCESS_READ) as pages, memoryview(pages) as content:
        hashing = _Hashing(content)
        hashing.start()
        try:
            buffer = bytearray(_CHUNK)
            copied = 0
            while copied < nbytes and (length := source.readinto(memoryview(buffer)[: nbytes - copied])):
                _write(target, memoryview(buffer)[:length])
                copied += length
                hashing.ends.put(copied)
        finally:
            hashing.ends.put(None)
            hashing.join()
    return hashing.digest.hexdigest()


def _write(target: FileIO, part: memoryview) -> None:
    while part:
        part = part[target.write(part) :]


class _Hashing(Thread):
    """Hashes ``content`` up to each of the ``ends`` that it is told, until one is None."""

    def __init__(self, content: memoryview) -> None:
        super().__init__(name="mlc-hash")
        self.content = content
        self.ends: SimpleQueue[int | None] = SimpleQueue()
        self.digest = hashlib.sha256()

    def run(self) -> None:
        begin = 0
        while (end := self.ends.get()) is not None:
            self.digest.update(self.content[begin:end])
            begin = end
