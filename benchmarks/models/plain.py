"""Networks in plain torch.nn whose operations the transformers and image classifiers lack: recurrence, 1-D and 3-D convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Inputs = Callable[[torch.Generator], dict[str, Tensor]]


class Recurrent(nn.Module):
    """A recurrent network over embedded features with a linear head. Input (batch, length, 128), output (batch, length, 64)."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], bidirectional: bool = False, layers: int = 2) -> None:
        super().__init__()
        self.recurrence = kind(128, 256, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(512 if bidirectional else 256, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrence(x)[0])


class Translation(nn.Module):
    """nn.Transformer with a causal decoder. Inputs (batch, length, 512) for source and target, output (batch, length, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(512, 8, 2, 2, 2048, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True)


def _autoencoder() -> nn.Module:
    encoder = [
        layer for a, b in ((3, 32), (32, 64), (64, 128)) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(0.1))
    ]
    decoder = [layer for a, b in ((128, 64), (64, 32)) for layer in (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.ReLU())]
    return nn.Sequential(*encoder, *decoder, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid())


def _conv1d() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b, dilation in ((1, 64, 1), (64, 64, 2), (64, 128, 4), (128, 128, 8)):
        layers += [nn.Conv1d(a, b, 5, padding=2 * dilation, dilation=dilation), nn.BatchNorm1d(b), nn.GELU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 35))


def _conv3d() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv3d(a, b, 3, padding=1), nn.BatchNorm3d(b), nn.ReLU(), nn.MaxPool3d((1, 2, 2) if a == 3 else 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(128, 101))


def _named(name: str, *shape: int) -> Inputs:
    return lambda generator: {name: torch.randn(*shape, generator=generator)}


PLAIN: Mapping[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM), _named("x", 4, 64, 128)),
    "GRU": (lambda: Recurrent(nn.GRU), _named("x", 4, 64, 128)),
    "bidirectional LSTM": (lambda: Recurrent(nn.LSTM, bidirectional=True), _named("x", 4, 64, 128)),
    "bidirectional GRU": (lambda: Recurrent(nn.GRU, bidirectional=True), _named("x", 4, 64, 128)),
    "nn.Transformer": (
        Translation,
        lambda g: {"source": torch.randn(2, 64, 512, generator=g), "target": torch.randn(2, 32, 512, generator=g)},
    ),
    "autoencoder": (_autoencoder, _named("input", 1, 3, 128, 128)),
    "1-D convolutions": (_conv1d, _named("input", 1, 1, 16000)),
    "3-D convolutions": (_conv3d, _named("input", 1, 3, 8, 64, 64)),
}
"""Name to (constructor, keyword arguments)."""
