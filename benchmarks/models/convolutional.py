"""Convolutional networks in plain torch.nn: ResNet-50, MobileNet (two versions) and a UNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .randomise import randomise


def _image(size: int, batch: int, seed: int) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; the stride is in the 3x3."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    """Four stages of bottlenecks behind a 7x7 stem (He et al., 2015)."""

    def __init__(self, blocks: Sequence[int], classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages, channels = [], 64
        for stage, count in enumerate(blocks):
            width = 64 << stage
            for block in range(count):
                stages.append(Bottleneck(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = 4 * width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


def resnet50(blocks: Sequence[int] = (3, 4, 6, 3), size: int = 224, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """ResNet-50; ``blocks`` per stage set the depth. Input (batch, 3, size, size), output (batch, 1000)."""
    inputs = (_image(size, batch, seed),)
    return randomise(ResNet(blocks), inputs, seed), inputs


def _conv_norm_relu6(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection."""

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv_norm_relu6(channels, hidden, 1)]
        layers += [
            _conv_norm_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        ]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Inverted residuals at width 1.0 (Sandler et al., 2018). ``depth`` caps the blocks of each stage."""

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    """Expansion, channels, blocks, stride of the first block."""

    def __init__(self, depth: int, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_norm_relu6(3, 32, 3, 2)]
        channels = 32
        for expansion, out, blocks, stride in self.STAGES:
            for block in range(min(blocks, depth)):
                layers.append(InvertedResidual(channels, out, stride if block == 0 else 1, expansion))
                channels = out
        self.features = nn.Sequential(*layers, _conv_norm_relu6(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(depth: int = 4, size: int = 224, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """MobileNetV2 with at most ``depth`` blocks a stage (4: all). Input (batch, 3, size, size), output (batch, 1000)."""
    inputs = (_image(size, batch, seed),)
    return randomise(MobileNetV2(depth), inputs, seed), inputs


def _separable(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


def mobilenet_v1(size: int = 224, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """MobileNet (Howard et al., 2017), width 1. Input (batch, 3, size, size), output (batch, 1000)."""
    stages = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    channels = 32
    for out, stride in stages:
        layers.append(_separable(channels, out, stride))
        channels = out
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
    inputs = (_image(size, batch, seed),)
    return randomise(model, inputs, seed), inputs


def _double_conv(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        nn.Conv2d(out, out, 3, 1, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Encoder and decoder with concatenated skips (Ronneberger et al., 2015).

    The deeper half of the decoder upsamples by transposed convolution, the shallower half by nearest neighbour and a 1x1
    convolution, so that one model exercises both.
    """

    def __init__(self, levels: int, base: int, classes: int) -> None:
        super().__init__()
        widths = [base << level for level in range(levels + 1)]
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in zip([3, *widths[:-2]], widths[:-1], strict=True))
        self.pool = nn.MaxPool2d(2)
        self.bottom = _double_conv(widths[-2], widths[-1])
        ups: list[nn.Module] = []
        for level in reversed(range(levels)):
            out, channels = widths[level], widths[level + 1]
            if level >= levels // 2:
                ups.append(nn.ConvTranspose2d(channels, out, 2, 2))
            else:
                ups.append(nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, out, 1)))
        self.up = nn.ModuleList(ups)
        self.merge = nn.ModuleList(_double_conv(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


def unet(levels: int = 4, base: int = 32, size: int = 256, batch: int = 1, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """UNet with ``levels`` halvings. Input (batch, 3, size, size), output (batch, 2, size, size)."""
    inputs = (_image(size, batch, seed),)
    return randomise(UNet(levels, base, classes=2), inputs, seed), inputs
