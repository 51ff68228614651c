"""Code for GPUs: templates whose kernels bind blocks and threads, and their way to CUDA and OpenCL sources."""
