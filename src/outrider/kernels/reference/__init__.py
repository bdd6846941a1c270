"""Plain PyTorch kernels: the CPU's own, and the oracle of the others. Obvious first, quick second.

They are row-invariant on a CPU because matrix products run on tiles of 16 rows, reductions are fixed trees of
elementwise adds, and functions are applied to contiguous memory only (torch's sum, softmax, sigmoid and silu give
other bits for other shapes, strides or thread counts).
"""
