"""Templates: each takes fused graphs of one shape of computation and generates kernels for them."""
