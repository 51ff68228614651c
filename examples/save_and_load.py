"""Save a compiled model, then run it in a process that imports neither torch nor tvm."""

import pathlib
import subprocess
import sys
import tempfile

from torch import nn, randn

import mlc

RUN = """
import sys
import numpy as np
import mlc

fast = mlc.load(sys.argv[1])
y = fast(np.ones((4, 64), np.float32))
print("output", y.shape, "with torch loaded:", "torch" in sys.modules, "and tvm:", "tvm" in sys.modules)
"""

model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10)).eval()

with tempfile.TemporaryDirectory() as folder:
    artifact = pathlib.Path(folder) / "small.mlc"
    mlc.compile(model, example_inputs=(randn(4, 64),)).save(artifact)
    print(f"saved {artifact.stat().st_size} bytes")
    subprocess.run([sys.executable, "-c", RUN, str(artifact)], check=True)
