"""The sampler's kernels in plain PyTorch. They work on rows of logits and other tensors, and know nothing of requests.

Each row's result has the same bits in any batch and on any number of threads. So the only floating-point sum over a row
is `row_sum`, a fixed tree; maxima, integer sums and element-wise work cannot depend on an order. (On a CPU exp, log and
log1p of torch give an element the same bits at every place; silu and sigmoid do not.)

The order of tokens is (logit descending, id ascending) everywhere.
"""
