"""mlc: compiles PyTorch models to tuned native code."""
