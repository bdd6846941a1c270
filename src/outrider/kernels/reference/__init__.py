"""Plain PyTorch kernels: for the CPU, and the reference for all other stacks. Clarity comes before speed.

They are row-invariant on a CPU because matrix products run on tiles of 16 rows, reductions are fixed trees of
elementwise adds, and functions are applied to contiguous memory only (torch's sum, softmax, sigmoid and silu give
other bits for other shapes, strides or thread counts).
"""
