"""Artifacts: compiled programs in one file.

A zip archive, members stored uncompressed::

    manifest.json          format version, ABI version, machine, programs, size and SHA-256 of every other member
    libraries/<n>.so       native libraries; <n>.json: C sources for a microcontroller, and what their constants are
    weights/<n>.bin        packed weights (the constants' offsets inside are multiples of 64)

Several programs (signatures of one model) share members of equal content. The archive's comment holds the SHA-256 of the
manifest. Nothing in it is pickled, but the libraries are native code: an artifact is trusted like a program.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, DeviceUnavailableError
from ..ir.program import Form, Program
from . import _native
from .devices import executable_for
from .executable import Callee, Executable
from .features import require_features
from .manifest import program_from_json, program_to_json
from .store import extract

FORMAT = 2
"""Raised whenever an older runtime could not read the file."""

_MANIFEST = "manifest.json"
_COMMENT = b"mlc artifact, manifest sha256 "
_ANY_MACHINE = "any"
"""The machine that a program of C sources can be loaded on: it does not run there."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAXIMAL_MANIFEST = 256 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""What precedes a member in a zip archive (APPNOTE 4.3.7): a signature, fields that the central directory has too, and the lengths of the
name and of the extra field that follow."""


def save(path: str | Path, callees: Sequence[Callee], name: str = "model") -> None:
    """Writes the executables into one artifact, atomically: a reader sees the old file or the new one.

    ArtifactError when there are none, or when one of them needs PyTorch.
    """
    executables = whole_programs(callees, name)
    if not executables:
        raise ArtifactError("nothing is compiled yet, so there is nothing to save; call the model once, or compile it with example_inputs")
    path = Path(path)
    members: dict[str, bytes | memoryview] = {}
    by_digest: dict[str, str] = {}

    def add(kind: str, suffix: str, content: bytes | memoryview) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if digest not in by_digest:
            by_digest[digest] = f"{kind}/{sum(member.startswith(kind) for member in members)}{suffix}"
            members[by_digest[digest]] = content
        return by_digest[digest]

    programs = []
    for executable in executables:
        try:
            library = executable.library.read_bytes()
        except OSError as error:
            raise ArtifactError(f"the library of '{executable.program.name}' is gone ({error}); compile the model again") from error
        weights = None
        if executable.program.constant_bytes:
            array = np.frombuffer(memoryview(executable.weights), np.uint8)
            weights = add("weights", ".bin", array[: executable.program.constant_bytes].data)
        member = add("libraries", _suffix(executable.program), library)
        programs.append({"program": program_to_json(executable.program), "library": member, "weights": weights})
    manifest = {
        "format": FORMAT,
        "abi": _native.ABI_VERSION,
        "name": name,
        "machine": _machine(executables[0]),
        "system": platform.system(),
        "programs": programs,
        "members": {member: {"sha256": digest, "bytes": len(members[member])} for digest, member in by_digest.items()},
    }
    text = json.dumps(manifest, indent=1).encode()
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.comment = _COMMENT + hashlib.sha256(text).hexdigest().encode()
                for member, content in {_MANIFEST: text, **members}.items():
                    with archive.open(zipfile.ZipInfo(member, _EPOCH), "w", force_zip64=len(content) > 1 << 30) as target:
                        target.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be written ({error}); save to a folder that exists and has room") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path, *, threads: int | None = None) -> tuple[str, list[Executable]]:
    """The name and the executables of an artifact, ready to run.

    ArtifactError says what is wrong with the file; DeviceUnavailableError which CPU features this machine lacks. ``threads``
    bounds the number of threads of each program.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"there is no file '{path}'; save a compiled model there first")
    with _explained(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        manifest = _read_manifest(path, archive)
        here = (platform.machine(), platform.system())
        if manifest["machine"] != _ANY_MACHINE and (manifest["machine"], manifest["system"]) != here:
            raise DeviceUnavailableError(
                f"'{path}' was compiled for {manifest['system']} on {manifest['machine']}, this is {platform.system()} on "
                f"{platform.machine()}; compile the model here"
            )
        loaded = [(program_from_json(entry["program"]), entry) for entry in manifest["programs"]]
        for program, _ in loaded:
            if program.form is Form.LIBRARY:
                require_features(program.features, program.target)
        _check_members(path, archive, manifest)
        mapped: dict[str, mmap.mmap] = {}
        executables = []
        for program, entry in loaded:
            library = _extract(file, archive, manifest, entry["library"], _suffix(program), rehash=True)
            weights = entry["weights"]
            if weights is not None and weights not in mapped:
                mapped[weights] = _map(_extract(file, archive, manifest, weights, ".bin", rehash=False))
            executable = executable_for(program, library, mapped[weights] if weights is not None else None, threads=threads)
            if program.form is Form.LIBRARY and executable.dispatches:
                _ = executable.runner  # opens the library now, so that a bad one is found here
            executables.append(executable)
        return str(manifest["name"]), executables


def whole_programs(callees: Sequence[Callee], name: str) -> list[Executable]:
    """The ``callees``, all of which must be programs without PyTorch; else an ArtifactError that says what PyTorch runs."""
    for callee in callees:
        if not isinstance(callee, Executable):
            raise ArtifactError(
                f"'{name}' cannot be saved: for {callee.signature_text} PyTorch runs a part of it. Replace these operations in the model "
                "(mlc.compile with strict=True refuses them), or compile and save the parts around them:\n"
                + "\n".join(map(str, callee.report().fallback))
            )
    return [callee for callee in callees if isinstance(callee, Executable)]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what a damaged archive makes the readers raise into ArtifactError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, UnicodeDecodeError, OverflowError) as error:
        raise ArtifactError(f"'{path}' is truncated, damaged or not an artifact of mlc ({error}); get or save the file again") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(f"the manifest of '{path}' is malformed ({type(error).__name__}: {error}); save the model again") from error
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read ({error}); get or save the file again") from error


def _read_manifest(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    if _MANIFEST not in archive.namelist():
        raise ArtifactError(f"'{path}' is a zip archive, but no artifact of mlc; pass a file written by save()")
    if archive.getinfo(_MANIFEST).file_size > _MAXIMAL_MANIFEST:
        raise ArtifactError(f"the manifest of '{path}' is damaged: it claims an impossible size; get the file again")
    text = archive.read(_MANIFEST)
    manifest = json.loads(text)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise ArtifactError(f"'{path}' is a zip archive, but no artifact of mlc; pass a file written by save()")
    # A newer format may have moved the hash, so the version comes first.
    if manifest["format"] > FORMAT or manifest.get("abi", 0) > _native.ABI_VERSION:
        raise ArtifactError(
            f"'{path}' has format {manifest['format']} (ABI {manifest.get('abi')}), newer than this version of mlc reads "
            f"({FORMAT}, ABI {_native.ABI_VERSION}); upgrade mlc, or compile the model with this version"
        )
    if (manifest["format"], manifest.get("abi")) != (FORMAT, _native.ABI_VERSION):
        raise ArtifactError(
            f"'{path}' has the old format {manifest['format']} (ABI {manifest.get('abi')}); compile and save the model again"
        )
    if archive.comment != _COMMENT + hashlib.sha256(text).hexdigest().encode():
        raise ArtifactError(
            f"the manifest of '{path}' does not have the hash the file states: it was edited or damaged; save the model again"
        )
    return manifest


def _check_members(path: Path, archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
    """The archive holds exactly the members the manifest lists, stored, with their sizes."""
    listed = manifest["members"]
    present = archive.namelist()
    if sorted(present) != sorted([_MANIFEST, *listed]):
        raise ArtifactError(f"'{path}' holds other members than its manifest lists; save the model again")
    for name, facts in listed.items():
        info = archive.getinfo(name)
        if info.file_size != facts["bytes"] or info.compress_type != zipfile.ZIP_STORED:
            raise ArtifactError(f"the member '{name}' of '{path}' differs from the manifest; save the model again")


def _extract(file: BufferedReader, archive: zipfile.ZipFile, manifest: dict[str, Any], name: str, suffix: str, *, rehash: bool) -> Path:
    facts = manifest["members"][name]
    return extract(facts["sha256"], facts["bytes"], suffix, file, _content_offset(file, archive.getinfo(name)), rehash=rehash)


def _content_offset(file: BufferedReader, info: zipfile.ZipInfo) -> int:
    """Where in the file the content of a stored member begins. It is read from there and not through zipfile, which would compute a CRC of
    what SHA-256 verifies."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"the member '{info.filename}' has no header")
    return info.header_offset + len(header) + int(name_length) + int(extra_length)


def _suffix(program: Program) -> str:
    return ".so" if program.form is Form.LIBRARY else ".json"


def _machine(executable: Executable) -> str:
    """The processor family a library is for, as ``platform.machine()`` names it: from its ELF header, else this machine's."""
    if executable.program.form is Form.SOURCES:
        return _ANY_MACHINE
    library = executable.library.read_bytes()
    elf = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
    kind = int.from_bytes(library[18:20], "little") if library[:4] == b"\x7fELF" else 0
    return elf.get(kind, platform.machine())


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_WILLNEED"):
        mapped.madvise(mmap.MADV_WILLNEED)
    return mapped
