"""Pruning: which elements stay, in every pattern and by every method."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune as torch_prune

import mlc
from mlc.errors import OptionError


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 3, groups=64), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return nn.Sequential(model, nn.Linear(64, 96), nn.Linear(96, 40))


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)) and getattr(module, "groups", 1) == 1]


def density(model: nn.Module) -> float:
    return sum(int(w.count_nonzero()) for w in weights(model)) / sum(w.numel() for w in weights(model))


@pytest.mark.parametrize("pattern", ["unstructured", "16x1", "1x16", "4x4", "32x32"])
@pytest.mark.parametrize("method", ["magnitude", "projection"])
def test_the_density_is_met_and_the_model_left_alone(pattern: str, method: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    pruned = mlc.prune(model, pattern, 0.3, method)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    # Blocks at the edges of small weights are not whole.
    assert density(pruned) == pytest.approx(0.3, abs=0.005 if pattern == "unstructured" else 0.15)
    for old, new in zip(weights(model), weights(pruned), strict=True):
        assert torch.all((new == 0) | (new == old))


@pytest.mark.parametrize(("rows", "columns"), [(16, 1), (1, 16), (4, 4), (32, 32)])
def test_blocks_are_kept_or_zeroed_whole(rows: int, columns: int) -> None:
    layer = nn.Linear(96, 128, bias=False)
    pruned = mlc.prune(layer, f"{rows}x{columns}", 0.25, "projection")
    blocks = (pruned.weight != 0).reshape(128 // rows, rows, 96 // columns, columns).permute(0, 2, 1, 3).flatten(2)
    assert torch.all(blocks.all(-1) | ~blocks.any(-1))
    assert blocks.any(-1).float().mean() == pytest.approx(0.25)
    norms = layer.weight.reshape(128 // rows, rows, 96 // columns, columns).square().sum((1, 3))
    assert norms[blocks.any(-1)].min() >= norms[~blocks.any(-1)].max()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("method", ["magnitude", "projection", "wanda"])
def test_n_of_m_inputs_stay(n: int, m: int, method: str) -> None:
    layer = nn.Linear(64, 24)
    pruned = mlc.prune(layer, f"{n}:{m}", method=method, calibration=[torch.ones(5, 64)])
    groups = pruned.weight.detach().reshape(24, 64 // m, m)
    assert torch.all(groups.count_nonzero(-1) == n)
    dropped = layer.weight.detach().reshape(24, 64 // m, m).abs().masked_fill(groups != 0, 0)
    assert torch.all(dropped.amax(-1) <= groups.abs().masked_fill(groups == 0, torch.inf).amin(-1))


def test_magnitude_compares_layers_but_for_the_floor() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.mul_(100)
    pruned = mlc.prune(model, "unstructured", 0.4, floor=0.25)
    large, small = (int(w.count_nonzero()) for w in weights(pruned))
    assert small == pytest.approx(0.25 * 0.4 * 64 * 64, abs=1)
    assert large + small == pytest.approx(0.4 * 2 * 64 * 64, abs=2)
    kept = model[0].weight[pruned[0].weight != 0].abs().min()
    assert kept >= model[0].weight[pruned[0].weight == 0].abs().max()


def test_wanda_keeps_what_large_inputs_meet() -> None:
    layer = nn.Linear(8, 6, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(1, 2, 48).reshape(6, 8))
    batch = torch.randn(200, 8) * torch.tensor([100.0, 1, 1, 100, 1, 1, 1, 1])
    pruned = mlc.prune(layer, "unstructured", 0.25, "wanda", calibration=[(batch[:50],), {"input": batch[50:100]}, batch[100:]])
    kept = pruned.weight != 0
    assert torch.equal(kept, torch.tensor([1, 0, 0, 1, 0, 0, 0, 0], dtype=torch.bool).expand(6, 8))


def test_running_the_model_leaves_the_modes_of_its_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)).train()
    model[1].eval()
    pruned = mlc.prune(model, "unstructured", 0.5, "wanda", calibration=[torch.randn(2, 3, 4, 4)])
    assert [module.training for module in pruned.modules()] == [True, True, False]
    assert torch.equal(pruned.state_dict()["1.running_mean"], torch.zeros(8))


def test_wanda_weighs_the_channels_of_convolutions() -> None:
    layer = nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    batch = torch.ones(2, 4, 5, 5) * torch.tensor([1.0, 3, 2, 4]).reshape(4, 1, 1)
    pruned = mlc.prune(layer, "unstructured", 0.5, "wanda", calibration=[batch])
    assert torch.equal((pruned.weight != 0).flatten(1), torch.tensor([[False, True, False, True]] * 3))


def test_a_pattern_for_each_kind_of_operator() -> None:
    pruned = mlc.prune(network(), {"linear": "2:4", "pointwise": "16x1"}, 0.5)
    first, pointwise, *linear = weights(pruned)
    assert first.count_nonzero() == first.numel()
    assert pointwise.count_nonzero() == pytest.approx(0.5 * pointwise.numel())
    assert all(torch.all(weight.reshape(-1, 4).count_nonzero(-1) == 2) for weight in linear)


def test_blocks_of_a_convolution_are_of_places_or_of_whole_windows() -> None:
    layer = nn.Conv2d(16, 32, 3)
    pruned = mlc.prune(layer, "16x1", 0.25, "projection")
    kept = (pruned.weight != 0).reshape(2, 16, 16, 9).permute(0, 2, 3, 1)
    assert torch.all(kept.all(-1) | ~kept.any(-1))
    assert kept.any(-1).float().mean() == pytest.approx(0.25)
    whole = mlc.prune(layer, "16x1 window", 0.25, "projection")
    windows = (whole.weight != 0).reshape(2, 16, 16, 9).permute(0, 2, 1, 3).flatten(2)
    assert torch.all(windows.all(-1) | ~windows.any(-1))
    assert pruned.weight.norm() > whole.weight.norm()


def test_taps_of_depthwise_convolutions_are_pruned_alike_across_channels() -> None:
    pruned = mlc.prune(nn.Conv2d(32, 32, 3, groups=32), {"depthwise": "16x1"}, 4 / 9, "projection")
    taps = (pruned.weight != 0).reshape(2, 16, 9)
    assert torch.all(taps.all(1) | ~taps.any(1))
    assert taps.any(1).sum() == 8


def test_layers_can_be_left_out_and_shared_weights_are() -> None:
    model = network()
    pruned = mlc.prune(model, "unstructured", 0.1, skip=["0", "2"])
    assert torch.equal(pruned[0][2].weight, model[0][2].weight)
    assert torch.equal(pruned[2].weight, model[2].weight)
    assert pruned[1].weight.count_nonzero() == pytest.approx(0.1 * 64 * 96, abs=1)
    tied = nn.ModuleDict({"embedding": nn.Embedding(10, 8), "head": nn.Linear(8, 10), "body": nn.Linear(8, 8)})
    tied["head"].weight = tied["embedding"].weight
    done = mlc.prune(tied, "unstructured", 0.5)
    assert done["head"].weight is done["embedding"].weight
    assert done["head"].weight.count_nonzero() == 80


def test_masks_of_torch_become_permanent() -> None:
    layer = nn.Linear(32, 32)
    torch_prune.l1_unstructured(layer, "weight", 0.9)
    pruned = mlc.prune(nn.Sequential(layer), "unstructured", 0.5)
    assert torch.equal(pruned[0].weight, layer.weight)
    model = nn.Sequential(nn.Linear(32, 32))
    sparsifier = WeightNormSparsifier(sparsity_level=0.8, sparse_block_shape=(1, 4), zeros_per_block=4)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    pruned = mlc.prune(model, "unstructured", 0.5)
    assert torch.equal(pruned[0].weight, model[0].weight)
    assert set(pruned.state_dict()) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"pattern": "4y4", "density": 0.5}, "unstructured"),
        ({"pattern": "4:4"}, "2:4"),
        ({"pattern": "unstructured"}, "density"),
        ({"density": 1.5}, "from 0 to 1"),
        ({"pattern": "2:4", "density": 0.3}, "leave it out"),
        ({"density": 0.5, "method": "luck"}, "'wanda'"),
        ({"density": 0.5, "method": "wanda"}, "calibration"),
        ({"density": 0.5, "method": "wanda", "calibration": torch.ones(4, 3)}, "list of batches"),
        ({"pattern": {"lstm": "2:4"}}, "pointwise"),
        ({"density": 0.5, "skip": ["0", "1", "2"]}, "no layer"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        mlc.prune(network(), **arguments)  # type: ignore[arg-type]
