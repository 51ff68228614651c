"""The command line as a user types it: results on standard output, one clear message on standard error, an exit code."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from command_line import CommandLine

TINY = "mlc.benchmarks.models:mlp_tiny"


@pytest.mark.parametrize(
    "command",
    ["compile", "run", "report", "tune", "bench", "targets", "cache", "db stats", "db best", "db export", "db import", "db prune"],
)
def test_help_teaches_by_example(mlc: CommandLine, command: str) -> None:
    done = mlc(*command.split(), "-h")
    assert done.code == 0
    assert "Examples" in done.out and f"mlc {command}" in done.out.partition("Examples")[2]


def test_a_wrong_command_is_a_usage_error(mlc: CommandLine) -> None:
    assert mlc("compile").code == 2
    assert mlc("fly").code == 2
    assert mlc("run", TINY, "--repeat", "0").code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "resnet50"), "does not name a model"),
        (("compile", TINY, "--target", "abacus"), "'abacus' names no target"),
        (("compile", TINY, "--precision", "w5"), "'w5' is unknown; use one of"),
        (("compile", TINY, "--precision", "decoder=w4"), "'decoder' is no module of this model"),
        (("compile", TINY, "--database", "nowhere.db"), "there is no tuning database 'nowhere.db'; 'mlc tune' makes one"),
        (("compile", TINY, "--calibration", "nowhere.npz"), "there is no calibration file 'nowhere.npz'"),
        (("bench", "mlp_tiny", "--calibration", "nowhere.npz"), "there is no calibration file 'nowhere.npz'"),
        (("bench", "models", "--calibration", "nowhere.npz"), "holds samples of one model's inputs; name that model alone"),
        (("tune", TINY, TINY, "--calibration", "nowhere.npz"), "--calibration was given 1 times for 2 models"),
        (("run", "nowhere.mlc"), "nowhere.mlc"),
        (("run", TINY, "--input", "nowhere.npy"), "input 'nowhere.npy' cannot be read"),
        (("bench", "mlp_tiny", "--systems", "abacus"), "no system is called abacus"),
        (("bench", "mlp_tiny", "--against", "eager,abacus"), "no system is called abacus"),
        (("bench", "mlp_tiny", "--resume"), "--resume needs --save FILE"),
    ],
)
def test_errors_are_one_message_without_traceback(mlc: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    done = mlc(*arguments)
    assert done.code == 1
    assert done.err.startswith("error: ") and message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_targets(mlc: CommandLine) -> None:
    assert "cpu -mcpu=x86-64-v3" in mlc("targets").out
    listed = mlc("targets", "--json").json["targets"]
    assert {"znver4", "sapphirerapids", "x86-64-v3"} <= {target["mcpu"] for target in listed}


def test_cache(mlc: CommandLine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLC_CACHE_DIR", str(tmp_path / "cache"))
    assert mlc("cache", "--json").json["files"] == 0
    (tmp_path / "cache" / "objects").mkdir(parents=True)
    (tmp_path / "cache" / "objects" / "kernel.o").write_bytes(b"1234")
    assert mlc("cache", "--json").json == {"path": str(tmp_path / "cache"), "files": 1, "bytes": 4, "cleared": False}
    assert mlc("cache", "--clear").code == 0
    assert not (tmp_path / "cache").exists()


def test_run_compares_with_pytorch(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    outputs = tmp_path / "out.npz"
    done = mlc("run", TINY, "--repeat", "3", "--json", "--output", str(outputs))
    assert done.code == 0
    assert done.json["error"] <= done.json["allowed_error"]
    assert done.json["outputs"][0]["shape"] == [1, 16]
    assert np.load(outputs)["output0"].shape == (1, 16)


def test_an_artifact_runs_on_a_file_of_inputs(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    artifact, image = tmp_path / "tiny.mlc", tmp_path / "x.npy"
    done = mlc("compile", TINY, "-o", str(artifact), "--json")
    assert done.code == 0 and done.json["bytes"] == artifact.stat().st_size
    np.save(image, np.zeros((1, 16), np.float32))
    done = mlc("run", str(artifact), "--input", str(image), "--repeat", "2")
    assert done.code == 0 and "f32" in done.out.replace("float32", "f32")
    assert mlc("run", str(artifact), "--input", str(image), "--input", str(image)).code == 1


def test_precision_goes_by_mode_or_by_module(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    artifact = tmp_path / "tiny.mlc"
    done = mlc("compile", TINY, "-o", str(artifact), "--precision", "w8", "--json")
    assert done.code == 0
    assert {kernel["precision"].strip("()") for kernel in done.json["report"]["programs"][0]["kernels"]} == {"w8"}
    ran = mlc("run", TINY, "--precision", "w8", "--repeat", "2", "--json")
    assert ran.code == 0 and ran.json["allowed_error"] is None and 1e-6 < ran.json["error"] < 0.05
    shown = mlc("run", TINY, "--precision", "w8", "--repeat", "2").out
    assert "that of rounding the weights included" in " ".join(shown.split())
    mixed = mlc("report", TINY, "--precision", "layers=w8,layers.1=fp32", "--json")
    assert [kernel["precision"].strip("()") for kernel in mixed.json["programs"][0]["kernels"]] == ["w8", ""]


def test_calibration_comes_from_a_file(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "samples.npz")
    np.savez(file, x=np.random.default_rng(0).normal(size=(5, 16)))
    options = ("--precision", "int8", "--json")

    def tasks(*more: str) -> set[str]:
        (program,) = mlc("report", TINY, *options, *more).json["programs"]
        return {kernel["task"] for kernel in program["kernels"]}

    known = tasks("--calibration", file)
    assert known != tasks(), "ranges that are known change the kernels"
    artifact = str(tmp_path / "tiny.mlc")
    assert mlc("compile", TINY, "-o", artifact, *options, "--calibration", file).code == 0
    (program,) = mlc("report", artifact, "--json").json["programs"]
    assert {kernel["task"] for kernel in program["kernels"]} == known
    database = str(tmp_path / "tuning.db")
    tuned = mlc("tune", TINY, "-d", database, "--trials", "1", *options, "--calibration", file).json["tasks"]
    assert {task["task"] for task in tuned} == known
    page = ("-d", database, "--html", str(tmp_path / "page.html"), "--calibration", file)
    assert mlc("report", TINY, *options, *page).json["unmeasured"] == sum(task["trials"] == 0 for task in tuned)
    benched = mlc("bench", "mlp_tiny", "--rounds", "1", "--seconds", "0", *options, "--calibration", file)
    assert benched.code == 0 and benched.json["plan"]["calibration"] == file and "median_s" in benched.json["models"][0]["systems"]["mlc"]
    assert benched.json["models"][0]["systems"]["mlc"]["error"] > 1e-6
    assert benched.json["models"][0]["systems"]["mlc"]["moved_bytes"] > 0


def test_report_lists_kernels_with_times(mlc: CommandLine) -> None:
    done = mlc("report", TINY, "--json")
    (program,) = done.json["programs"]
    assert program["kernels"] and all(kernel["seconds"] > 0 for kernel in program["kernels"])
    assert "GFLOP/s" in mlc("report", TINY).out


def test_bench_times_models_goes_on_with_a_file_and_writes_a_page(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    save, html = tmp_path / "bench.json", tmp_path / "bench.html"
    options = ("--against", "eager", "--rounds", "1", "--seconds", "0", "--save", str(save))
    first = mlc("bench", "mlp_tiny", *options, "--json")
    assert first.code == 0, first.err
    (model,) = first.json["models"]
    assert model["systems"]["mlc"]["speedup"] > 0 and json.loads(save.read_text())["models"] == first.json["models"]
    assert model["best_peer"] == "eager" and first.json["against_best_peer"] == pytest.approx(model["against_best_peer"])
    again = mlc("bench", "mlp_tiny", *options, "--resume", "--html", str(html), "--json")
    assert again.code == 0
    for system, found in again.json["models"][0]["systems"].items():  # not timed again
        assert found["round_medians_s"] == model["systems"][system]["round_medians_s"]
    assert "mlp_tiny" in html.read_text()
    other = mlc("bench", "mlp_tiny", "--systems", "eager", "--save", str(save), "--resume")
    assert other.code == 1 and "is of other systems" in other.err
    tuned = mlc("bench", "mlp_tiny", *options, "--database", str(tmp_path / "tuned.db"), "--resume")
    assert tuned.code == 1 and "another precision or database" in " ".join(tuned.err.split())
    save.write_text("{}")
    assert "is no report that this version" in mlc("bench", "mlp_tiny", *options, "--resume").err


def test_running_an_artifact_imports_neither_torch_nor_tvm(mlc: CommandLine, tmp_path: pathlib.Path) -> None:
    artifact = tmp_path / "tiny.mlc"
    assert mlc("compile", TINY, "-o", str(artifact)).code == 0
    check = (
        "import sys\nfrom mlc import cli\n"
        f"try:\n    cli.main(['run', {str(artifact)!r}])\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "assert not {'torch', 'tvm', 'tvm_ffi'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
