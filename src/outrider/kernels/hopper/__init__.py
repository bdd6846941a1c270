"""The kernel stack of Hopper GPUs (compute capability 9.0): Triton, and Gluon where wgmma and TMA are needed."""
