"""C99 source for devices without an operating system: kernels printed from TIR, the program around them, and what it takes up."""
