"""The model zoo and the harness that times mlc against other systems, side by side."""
