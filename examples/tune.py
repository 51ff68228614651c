"""Search for faster schedules of a model's kernels, and use what was found."""

import pathlib
import tempfile

import torch
from torch import nn

import mlc

model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)).eval()
inputs = (torch.randn(128, 512),)

with tempfile.TemporaryDirectory() as folder:
    database = pathlib.Path(folder) / "tuning.db"
    result = mlc.tune(model, example_inputs=inputs, trials=8, database=database)
    print(result)
    fast = mlc.compile(model, example_inputs=inputs, database=database)

print(fast.profile())
