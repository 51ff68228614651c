"""Every operation of the families becomes what computes the same; the documentation lists them; some are compiled."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from eager import array, compare, leaf_indices, run, tensors
from families import FAMILIES, inputs, program
from imported_families import exported_family, imported_family

import mlc

DOCS = Path(mlc.__file__).parent / "docs"


def expected(name: str) -> list[torch.Tensor]:
    with torch.no_grad():
        return tensors(program(name)(*inputs()))


@pytest.mark.parametrize("name", FAMILIES)
def test_imported_operations_compute_what_pytorch_does(name: str) -> None:
    imported = imported_family(name)
    mlc.ir.verify(imported.graph)
    outputs = run(imported, inputs())
    for number, (index, truth) in enumerate(zip(leaf_indices(imported.signature.output_tree), expected(name), strict=True)):
        try:
            compare(outputs[index], truth)
        except AssertionError as error:
            raise AssertionError(f"result {number} of the family {name}: {error}") from None


COMPILED = ("bits", "comparisons", "transcendental", "special", "activations", "reductions", "scans", "ordering", "normalisations")


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_operations_compute_what_pytorch_does(name: str) -> None:
    compiled = mlc.compile(exported_family(name), threads=1, strict=True)
    for number, (result, truth) in enumerate(zip(tensors(compiled(*inputs())), expected(name), strict=True)):
        try:
            compare(array(result), truth)
        except AssertionError as error:
            raise AssertionError(f"result {number} of the family {name}: {error}") from None


def operations_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("operations", DOCS / "operations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_documentation_lists_them() -> None:
    operations = operations_page()
    table = operations.table_of_families()
    finished = table.finished()
    assert len(finished.converted) >= 200
    assert len(finished.converted) + len(finished.decomposed) >= 400
    assert (DOCS / "operations.md").read_text(encoding="utf-8") == operations.page(table), "out of date: run python docs/generate.py"
