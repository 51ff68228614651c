"""Saving and loading: round trips, damage, other versions and machines, concurrent processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_programs import adder, mlp, mlp_reference

from mlc.errors import ArtifactError, DeviceUnavailableError, SignatureError
from mlc.runtime import Executable, artifact, load


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MLC_CACHE_DIR", str(folder))
    yield folder


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Executable, np.ndarray]:
    executable, weights = mlp(tmp_path)
    path = tmp_path / "model.mlc"
    artifact.save(path, [executable], "perceptron")
    return path, executable, weights


X = np.random.default_rng(5).standard_normal((1, 16)).astype(np.float32)


def test_a_saved_program_gives_the_same_bits(saved: Any) -> None:
    path, executable, _ = saved
    model = load(path)
    np.testing.assert_array_equal(model(X), executable(X))
    assert torch.equal(model(torch.from_numpy(X)), torch.from_numpy(executable(X)))
    assert model.executables[0].program == executable.program
    assert "perceptron" in repr(model) and "(x: f32[1,16]) -> f32[1,16]" in repr(model)


def test_several_signatures_share_weights_and_dispatch(tmp_path: Path) -> None:
    executable, weights = mlp(tmp_path)
    path = tmp_path / "model.mlc"
    artifact.save(path, [executable, adder(tmp_path), adder(tmp_path, (3, 3)), Executable(executable.program, executable.library, weights)])
    with zipfile.ZipFile(path) as archive:
        assert sum(name.startswith("weights/") for name in archive.namelist()) == 1
    model = load(path)
    assert len(model.signatures) == 4
    for _ in range(3):
        for shape in [(4, 8), (3, 3)]:
            np.testing.assert_array_equal(model(np.ones(shape, np.float32), np.ones(shape, np.float32)), np.full(shape, 2.0))
        np.testing.assert_array_equal(model(X), executable(X))
    with pytest.raises(SignatureError, match=r"fits none of the compiled signatures:\n.*\n.*a: f32\[4,8\].*\n.*a: f32\[3,3\]"):
        model(np.ones((5, 5), np.float32), np.ones((5, 5), np.float32))


def test_a_loaded_model_can_be_saved_again(saved: Any, tmp_path: Path) -> None:
    path, executable, _ = saved
    model = load(path)
    model.save(path)
    np.testing.assert_array_equal(load(path)(X), executable(X))
    np.testing.assert_array_equal(model(X), executable(X))


def test_a_loaded_model_refuses_to_drop_gradients(saved: Any) -> None:
    path = saved[0]
    for model in (load(path), load(path)):
        x = torch.from_numpy(X).clone().requires_grad_()
        with pytest.raises(SignatureError, match=r"requires a gradient.*x\.detach\(\)"):
            model(x)
        with torch.no_grad():
            model(x)
        with pytest.raises(SignatureError, match="requires a gradient"):
            model(x)
        model(x.detach())


def test_nothing_is_pickled_and_everything_is_stored(saved: Any) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        assert sorted(archive.namelist()) == ["libraries/0.so", "manifest.json", "weights/0.bin"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert json.loads(archive.read("manifest.json"))["format"] == artifact.FORMAT


def test_saving_is_reproducible_and_leaves_nothing_behind(saved: Any, tmp_path: Path) -> None:
    path, executable, _ = saved
    before = path.read_bytes()
    artifact.save(path, [executable], "perceptron")
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*.part"))


def test_saving_fails_clearly(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing is compiled yet"):
        artifact.save(tmp_path / "m.mlc", [])
    with pytest.raises(ArtifactError, match="cannot be written"):
        artifact.save(tmp_path / "no" / "folder" / "m.mlc", [adder(tmp_path)])
    executable = adder(tmp_path)
    executable.library.unlink()
    with pytest.raises(ArtifactError, match="library of 'test' is gone"):
        artifact.save(tmp_path / "m.mlc", [executable])


def with_cache_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(folder / f"cache-{random.random()}"))


def test_truncation_is_always_noticed(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved[0].read_bytes()
    damaged = tmp_path / "damaged.mlc"
    for length in [0, 1, 21, *range(30, len(content), len(content) // 60), len(content) - 1]:
        with_cache_of_its_own(tmp_path, monkeypatch)
        damaged.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=r"damaged\.mlc.*; "):
            load(damaged)


def test_an_edited_byte_is_noticed_or_harmless(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of members always matter; a few of the archive's own (dates, permissions) do not."""
    path, executable, _ = saved
    content = path.read_bytes()
    expected = executable(X)
    with zipfile.ZipFile(path) as archive:
        members = []
        for info in archive.infolist():
            start = info.header_offset + 30 + len(info.filename)
            members.append((start, start + info.file_size))
    damaged = tmp_path / "damaged.mlc"
    positions = {*range(0, len(content), 97), *range(len(content) - 320, len(content)), *range(45)}
    unnoticed = 0
    for position in sorted(positions):
        with_cache_of_its_own(tmp_path, monkeypatch)
        edited = bytearray(content)
        edited[position] ^= 0x41
        damaged.write_bytes(edited)
        try:
            model = load(damaged)
        except (ArtifactError, DeviceUnavailableError):
            continue
        unnoticed += 1
        assert not any(start <= position < end for start, end in members), position
        np.testing.assert_array_equal(model(X), expected)
    assert unnoticed < len(positions) / 4


def rewritten(path: Path, change: Callable[[dict[str, Any]], None], *, consistent: bool = True, members: Any = ()) -> Path:
    """A copy of the artifact with another manifest, with ``consistent`` with the right hash of it."""
    out = path.with_name("rewritten.mlc")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        manifest = json.loads(source.read("manifest.json"))
        change(manifest)
        text = json.dumps(manifest).encode()
        digest = hashlib.sha256(text).hexdigest().encode()
        target.comment = b"mlc artifact, manifest sha256 " + digest if consistent else source.comment
        target.writestr("manifest.json", text)
        for name in [name for name in source.namelist() if name != "manifest.json"]:
            target.writestr(name, source.read(name))
        for name, content in members:
            target.writestr(name, content)
    return out


CHANGES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda m: m.update(format=99), "has format 99.*newer than this version.*upgrade mlc"),
    (lambda m: m.update(abi=99), r"\(ABI 99\), newer"),
    (lambda m: m.update(format=0), "has the old format 0"),
    (lambda m: m.pop("programs"), "manifest of .* is malformed"),
    (lambda m: m["programs"][0]["program"].pop("arena_bytes"), "describes a program wrongly.*arena_bytes"),
    (lambda m: m["programs"][0]["program"].update(arena_bytes=-1), "describes a program wrongly.*count"),
    (lambda m: m["programs"][0]["program"].update(arena_bytes="64"), "describes a program wrongly.*count"),
    (lambda m: m["programs"][0]["program"]["signature"]["inputs"][0].update(dtype="f31"), "no dtype is called 'f31'"),
    (lambda m: m["programs"][0]["program"]["steps"][0].update(arguments=[["constant", 4096, 64]]), "outside the program's memory"),
    (lambda m: m["programs"][0]["program"]["steps"][0].update(arguments=[["output", 1, 64]]), "outside the program's memory"),
    (lambda m: m["programs"][0]["program"]["constants"].append([64, 1 << 40, "0"]), "outside the weights"),
    (lambda m: m["programs"][0]["program"]["signature"].update(output_tree={"kind": "leaf", "index": 5}), "kind 'leaf'"),
    (lambda m: m["programs"][0]["program"]["signature"].update(input_tree={"kind": "tuple", "items": []}), "input tree is not"),
    (lambda m: m["members"]["weights/0.bin"].update(bytes=8), "member 'weights/0.bin' .* differs"),
    (lambda m: m["members"]["weights/0.bin"].update(sha256="0" * 64), "does not have the hash"),
    (lambda m: m["members"].pop("weights/0.bin"), "other members than its manifest lists"),
    (lambda m: m["programs"][0].update(library="../../etc/passwd"), "malformed"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_manifests_that_do_not_hold_together_are_refused(saved: Any, change: Any, expected: str) -> None:
    with pytest.raises(ArtifactError, match=expected):
        load(rewritten(saved[0], change))


def test_an_edited_manifest_is_refused(saved: Any) -> None:
    with pytest.raises(ArtifactError, match="does not have the hash the file states"):
        load(rewritten(saved[0], lambda manifest: manifest.update(name="other"), consistent=False))


def test_foreign_files_are_refused(saved: Any, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.mlc"
    with pytest.raises(ArtifactError, match="there is no file"):
        load(foreign)
    for content in (b"", b"hello", b"PK\x05\x06" + bytes(18), os.urandom(4000)):
        foreign.write_bytes(content)
        with pytest.raises(ArtifactError):
            load(foreign)
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("data.txt", "hello")
    with pytest.raises(ArtifactError, match="no artifact of mlc; pass a file written by save"):
        load(foreign)
    with pytest.raises(ArtifactError, match="other members"):
        load(rewritten(saved[0], lambda manifest: None, members=[("extra.bin", b"x")]))


def test_programs_for_other_machines_are_refused(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailableError, match="on vax, this is"):
        load(rewritten(saved[0], lambda manifest: manifest.update(machine="vax")))
    path = tmp_path / "future.mlc"
    artifact.save(path, [mlp(tmp_path, features=("sse2", "quantum9000"))[0]])
    with pytest.raises(DeviceUnavailableError, match="lacks: quantum9000; run it on"):
        load(path)


def test_a_damaged_cache_is_repaired(saved: Any, cache: Path) -> None:
    path, executable, _ = saved
    load(path)
    libraries, weights = list(cache.rglob("*.so")), list(cache.rglob("*.bin"))
    assert len(libraries) == len(weights) == 1
    assert not stat.S_IMODE(libraries[0].stat().st_mode) & 0o222
    for file in (*libraries, *weights):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[:-8])
        np.testing.assert_array_equal(load(path)(X), executable(X))
        assert file.read_bytes() == content
    library = libraries[0].read_bytes()
    libraries[0].unlink()
    libraries[0].write_bytes(bytes(len(library)))
    np.testing.assert_array_equal(load(path)(X), executable(X))


def test_an_unwritable_cache_is_explained(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match="set MLC_CACHE_DIR"):
        load(saved[0])


LIGHT = """
import sys
import mlc
model = mlc.load(sys.argv[1])
import numpy as np
out = model(np.load(sys.argv[2]))
assert type(out) is np.ndarray
np.save(sys.argv[3], out)
model.profile(calls=2)
str(model.report())
heavy = [name for name in ("torch", "tvm", "tvm_ffi", "sympy", "networkx", "transformers", "rich") if name in sys.modules]
assert not heavy, heavy
"""


def test_processes_without_torch_and_tvm_load_at_the_same_time(saved: Any, tmp_path: Path, cache: Path) -> None:
    path, executable, _ = saved
    np.save(tmp_path / "x.npy", X)
    outs = [tmp_path / f"out{index}.npy" for index in range(3)]
    processes = [subprocess.Popen([sys.executable, "-c", LIGHT, path, tmp_path / "x.npy", out], stderr=subprocess.PIPE) for out in outs]
    for process, out in zip(processes, outs, strict=True):
        _, problems = process.communicate()
        assert process.returncode == 0, problems.decode()
        np.testing.assert_array_equal(np.load(out), executable(X))
    assert not list(cache.rglob("*.part"))


def test_import_is_light() -> None:
    code = "import sys, mlc; mlc.Error; dir(mlc); print([n for n in ('torch', 'tvm', 'numpy', 'sympy') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_weights_are_mapped_not_copied(saved: Any) -> None:
    import mmap

    model = load(saved[0])
    assert isinstance(model.executables[0].weights, mmap.mmap)
    np.testing.assert_allclose(model(X), mlp_reference(saved[2], X), rtol=1e-5, atol=1e-5)
