"""The kernels for NVIDIA's Hopper (compute capability 9.0) in Gluon, with wgmma and TMA; `triton` has the others."""

DEVICE = "cuda"
"""The kind of device that its functions run on."""

_GLUON = "it is written in Gluon, which has no interpreter"
NEEDS_GPU = {
    "linear": _GLUON,
    "linear_compilations": _GLUON,
    "experts": _GLUON,
    "plan_attention": "its plan is for its own paged_attention",
    "paged_attention": _GLUON,
    "gated_delta_rule": _GLUON,
    "save_states": _GLUON,
}
"""Functions that Triton's interpreter cannot run on a CPU, with the reason."""
