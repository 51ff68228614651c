"""Compile a small convolutional network and compare it with PyTorch."""

import torch
from torch import nn

import mlc

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 16 * 16, 10),
).eval()
x = torch.randn(1, 3, 32, 32)

fast = mlc.compile(model, example_inputs=(x,))

with torch.no_grad():
    difference = (fast(x) - model(x)).abs().max().item()
print(f"largest difference: {difference:.1e}")
print(fast.report())
assert difference < 1e-4
