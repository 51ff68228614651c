"""MODEL on the command line: what it may be, and what is said when it is something else."""

from __future__ import annotations

import pathlib

import pytest
import torch

from mlc.errors import ModelSourceError
from mlc.model_source import load_model

LINEAR = """
import torch
class Net(torch.nn.Module):
    def forward(self, x, scale=1.0):
        return x * scale
def make():
    return Net(), (torch.ones(2),)
def with_keywords():
    return Net(), (torch.ones(2),), {"scale": torch.tensor(3.0)}
def wrong():
    return Net(), torch.ones(2)
def crash():
    raise RuntimeError("no such luck")
not_callable = 3
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "net_of_a_test.py"
    path.write_text(LINEAR)
    return path


def test_a_function_of_a_file(file: pathlib.Path) -> None:
    source = load_model(f"{file}:make")
    assert source.name == "make"
    assert torch.equal(source.eager(*source.inputs), torch.ones(2))


def test_keyword_arguments(file: pathlib.Path) -> None:
    source = load_model(f"{file}:with_keywords")
    assert torch.equal(source.eager(*source.inputs, **source.kwargs), torch.full((2,), 3.0))


def test_a_function_of_a_package() -> None:
    source = load_model("mlc.benchmarks.models:mlp_tiny")
    assert source.eager(*source.inputs).shape == (1, 16)


def test_an_exported_program(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = load_model(f"{file}:make")
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(source.model, source.inputs), path)
    again = load_model(str(path))
    assert again.name == "net"
    assert torch.equal(again.eager(*again.inputs), torch.ones(2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50", "expected file.py:function or package.module:function"),
        ("nowhere.py:make", "there is no file 'nowhere.py'"),
        ("nowhere.pt2", "there is no file 'nowhere.pt2'"),
        ("no.such.module:make", "does not import"),
        ("FILE:other", "has no function 'other'; it has Net, crash, make, with_keywords, wrong"),
        ("FILE:not_callable", "has no function 'not_callable'"),
        ("FILE:wrong", r"must return \(model, example_inputs\).*it returned \(Net, Tensor\)"),
        ("FILE:crash", "RuntimeError: no such luck"),
    ],
)
def test_what_is_wrong_is_said(file: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(ModelSourceError, match=message):
        load_model(text.replace("FILE", str(file)))


def test_a_file_that_does_not_load(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "broken_net.py"
    path.write_text("import torch\n1 / 0\n")
    with pytest.raises(ModelSourceError, match="does not load: ZeroDivisionError"):
        load_model(f"{path}:make")


def test_a_file_that_is_no_exported_program(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "text.pt2"
    path.write_text("hello")
    with pytest.raises(ModelSourceError, match="no program that torch"):
        load_model(str(path))
