"""The cache folder where the members of artifacts are extracted once, under the hash of their content."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import ArtifactError

_CHUNK = 1 << 20


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


def extract(digest: str, nbytes: int, suffix: str, open_member: Callable[[], BinaryIO], *, rehash: bool) -> Path:
    """The path of the content with this SHA-256 in the cache, written there first if need be.

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
        content = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as target, open_member() as source:
            while chunk := source.read(_CHUNK):
                content.update(chunk)
                target.write(chunk)
        if content.hexdigest() != digest:
            raise ArtifactError("a member of the artifact does not have the hash its manifest states; the file was damaged, get it again")
        os.chmod(temporary, 0o500 if suffix == ".so" else 0o400)
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error}); free some space or set MLC_CACHE_DIR to another folder") from error
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return path
