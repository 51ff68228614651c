"""The order of channels: what is tied, that networks compute the same in any order, and that blocks keep more in the one that is chosen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import mlc
from mlc.channel_order import Role, blockwise_order, channel_groups, gather_alike, kept_by_blocks
from mlc.errors import OptionError


class Residual(nn.Module):
    """A stem, an inverted bottleneck with squeeze-and-excite around which a residual goes, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.expand = nn.Sequential(nn.Conv2d(16, 48, 1), nn.BatchNorm2d(48), nn.SiLU())
        self.depthwise = nn.Sequential(nn.Conv2d(48, 48, 3, padding=1, groups=48), nn.BatchNorm2d(48), nn.SiLU())
        self.squeeze, self.excite = nn.Conv2d(48, 8, 1), nn.Conv2d(8, 48, 1)
        self.project = nn.Sequential(nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        wide = self.depthwise(self.expand(x))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(torch.nn.functional.adaptive_avg_pool2d(wide, 1)))))
        x = x + self.project(wide * gate)
        return self.classifier(torch.flatten(self.pool(x), 1))


def model() -> nn.Module:
    torch.manual_seed(0)
    made = Residual().eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return made


def test_what_a_residual_ties_together_shares_an_order() -> None:
    groups = channel_groups(model())
    writers = [{name for name, role in group.members if role is Role.WRITES} for group in groups]
    assert {"stem.0", "project.0"} in writers
    assert {"expand.0", "excite"} in writers
    assert {"classifier.0"} in writers
    assert not any("classifier.2" in each for each in writers)


def test_any_order_computes_the_same() -> None:
    original, x = model(), torch.randn(2, 3, 12, 12)
    changed = copy.deepcopy(original)
    groups = channel_groups(changed)
    assert len(groups) == 4
    for group in groups:
        group.reorder(changed, torch.randperm(group.count))
    assert not torch.equal(changed.get_parameter("expand.0.weight"), original.get_parameter("expand.0.weight"))
    with torch.no_grad():
        torch.testing.assert_close(changed(x), original(x), rtol=1e-4, atol=1e-5)


def test_rows_that_are_alike_are_gathered() -> None:
    torch.manual_seed(0)
    kinds = torch.arange(32) % 4
    scores = torch.rand(32, 64) * 0.1 + (torch.arange(64) % 4 == kinds[:, None]).float()
    order = blockwise_order(scores, 8, 0.25)
    assert sorted(order.tolist()) == list(range(32))
    assert kept_by_blocks(scores[order], 8, 0.25) > 0.8 > 0.4 > kept_by_blocks(scores, 8, 0.25)


def test_pruning_keeps_more_in_the_order_that_is_chosen() -> None:
    original, x = model(), torch.randn(2, 3, 12, 12)
    changed = copy.deepcopy(original)
    assert all(after > before for _, before, after in gather_alike(changed, 16, 0.25))
    with torch.no_grad():
        torch.testing.assert_close(changed(x), original(x), rtol=1e-4, atol=1e-5)
    plain, permuted = (mlc.prune(original, "16x1", 0.25, "projection", permute=flag) for flag in (False, True))
    assert permuted.get_parameter("expand.0.weight").norm() > plain.get_parameter("expand.0.weight").norm()


class Unknown(nn.Module):
    """Channels that are concatenated, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.twice = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twice(self.twice(torch.cat([self.first(x), self.second(x)], 1)))


def test_what_is_not_known_to_keep_an_order_is_left_alone() -> None:
    assert channel_groups(Unknown()) == []


class Branching(nn.Module):
    """A branch that no trace can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_cannot_be_traced() -> None:
    with pytest.raises(OptionError, match="permute"):
        channel_groups(Branching())
