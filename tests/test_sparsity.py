"""Compiling models whose weights hold zeros, through the public face."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune as torch_prune

import mlc


def kernels(compiled: mlc.CompiledModel) -> set[str]:
    """The templates of a compiled model's kernels."""
    return {kernel.config.partition("{")[0] for program in compiled.report().programs for kernel in program.kernels}


def check(model: nn.Module, x: torch.Tensor, expected: torch.Tensor | None = None, **options: object) -> mlc.CompiledModel:
    """Compiles, and compares with PyTorch."""
    compiled = mlc.compile(model, example_inputs=(x,), **options)  # type: ignore[arg-type]
    with torch.no_grad():
        want = model(x) if expected is None else expected
        torch.testing.assert_close(compiled(x), want, rtol=1e-4, atol=1e-5)
    return compiled


def layer(inputs: int = 256, outputs: int = 256) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize(
    ("pattern", "density", "template"),
    [("unstructured", 0.1, "sparse_rows"), ("16x1", 0.2, "sparse_panels"), ("32x32", 0.2, "sparse_panels"), ("4x4", 0.2, "sparse_rows")],
)
def test_zeros_are_found_and_left_out(pattern: str, density: float, template: str) -> None:
    model = nn.Sequential(mlc.prune(layer(), pattern, density), nn.GELU())
    x = torch.randn(128, 256)
    compiled = check(model, x)
    assert kernels(compiled) == {template}
    for off in (None, "off"):
        assert kernels(check(model, x, sparsity=off)) == {"matmul"}


def test_dense_models_have_the_same_kernels_with_and_without() -> None:
    model, x = nn.Sequential(layer(), nn.ReLU(), layer()), torch.randn(16, 256)
    tasks = []
    for sparsity in ("auto", None):
        (program,) = mlc.compile(model, example_inputs=(x,), sparsity=sparsity).report().programs
        tasks.append([kernel.task for kernel in program.kernels])
    assert tasks[0] == tasks[1]


def test_infinities_meet_zeros_as_in_pytorch_where_that_is_asked_for() -> None:
    model, x = mlc.prune(layer(), "unstructured", 0.1), torch.randn(128, 256)
    x[3, 7] = torch.inf
    compiled = mlc.compile(model, example_inputs=(x,), nonfinite="strict")
    assert kernels(compiled) == {"matmul"}
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5, equal_nan=True)
        assert compiled(x)[3].isnan().any()


def test_a_network_of_pointwise_convolutions() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1)
    ).eval()
    pruned = mlc.prune(model, {"pointwise": "unstructured"}, 0.1)
    compiled = check(pruned, torch.randn(2, 16, 14, 14))
    assert any(template.startswith("sparse_") for template in kernels(compiled))


@pytest.mark.parametrize(
    ("precision", "pattern", "density", "rows", "template"),
    [("w4", "2:4", None, 1, "sparse_select"), ("w8", "16x1", 0.2, 32, "sparse_panels"), ("w8", "unstructured", 0.05, 32, "sparse_rows")],
)
def test_zeros_and_few_bits_together(precision: str, pattern: str, density: float | None, rows: int, template: str) -> None:
    model, x = mlc.prune(layer(1024, 1024), pattern, density), torch.randn(rows, 1024)
    target = "cpu -mcpu=haswell -threads=2"  # what is quickest depends on the vectors
    dense = mlc.compile(model, example_inputs=(x,), target=target, precision=precision, sparsity="off")
    compiled = mlc.compile(model, example_inputs=(x,), target=target, precision=precision)
    assert kernels(compiled) == {template}
    assert compiled.report().programs[0].weights_bytes < 0.8 * dense.report().programs[0].weights_bytes
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), dense(x), rtol=1e-4, atol=1e-5)


def test_new_weights_are_looked_at_anew() -> None:
    model, x = mlc.prune(layer(), "unstructured", 0.05), torch.randn(64, 256)
    compiled = check(model, x)
    assert kernels(compiled) == {"sparse_rows"}
    model.load_state_dict(layer().state_dict())
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    assert kernels(compiled) == {"matmul"}


def test_masks_of_torch() -> None:
    x = torch.randn(128, 256)
    masked = layer()
    torch_prune.l1_unstructured(masked, "weight", 0.9)
    assert kernels(check(masked, x)) == {"sparse_rows"}
    model = nn.Sequential(layer())
    sparsifier = WeightNormSparsifier(sparsity_level=0.9, sparse_block_shape=(16, 1), zeros_per_block=16)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert kernels(check(model, x)) == {"sparse_panels"}


@pytest.mark.parametrize("kind", ["csr", "coo", "bsr"])
def test_sparse_tensors_of_torch(kind: str) -> None:
    x, dense = torch.randn(128, 256), mlc.prune(layer(), "16x1", 0.1)
    model, weight = copy.deepcopy(dense), dense.weight.detach()
    stored = {"csr": weight.to_sparse_csr, "coo": weight.to_sparse, "bsr": lambda: weight.to_sparse_bsr((16, 1))}[kind]()
    model.weight = nn.Parameter(stored, requires_grad=False)
    with torch.no_grad():
        expected = dense(x)
    assert kernels(check(model, x, expected)) == {"sparse_panels"}
    assert model.weight.layout == stored.layout


def test_a_saved_program_keeps_its_sparse_weights_small(tmp_path: object) -> None:
    model, x = mlc.prune(layer(1024, 1024), "unstructured", 0.05), torch.randn(32, 1024)
    compiled = check(model, x)
    assert compiled.report().programs[0].weights_bytes < 0.15 * 4 * 1024 * 1024
    path = f"{tmp_path}/sparse.mlc"
    compiled.save(path)
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(mlc.load(path)(x)), compiled(x))
