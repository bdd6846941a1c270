"""The conformance of a kernel stack: one check for each function of the interface, on any device.

Run as a program with the name of a stack, it checks under Triton's interpreter, which an environment variable chooses
before Triton is imported; its last line says what failed, by function.
"""

import importlib
import json
import sys
import types
import warnings
from collections.abc import Callable

from outrider.kernels import ENCODER_FUNCTIONS, FUNCTIONS, Kernels, load_kernels
from outrider.kernels.interface.latent import GroupedRouterKernels, LatentKernels
from outrider.kernels.stacks import exports
from tests.kernels import admission_checks as admission
from tests.kernels import encoder_checks as encoder
from tests.kernels import latent_checks as latent
from tests.kernels import model_checks as model
from tests.kernels import sampling_checks as sampling
from tests.kernels import state_checks as state
from tests.kernels import step_checks as step
from tests.kernels.ordered_products import use_ordered_products
from tests.kernels.subject import Subject

CHECKS: dict[str, Callable[[Subject], None]] = {
    "empty_weight": model.check_linear,
    "linear": model.check_linear,
    "linear_compilations": model.check_linear_compilations,
    "rms_norm": model.check_rms_norm,
    "add_rms_norm": model.check_add_rms_norm,
    "silu_and_mul": model.check_silu_and_mul,
    "gelu_tanh_and_mul": model.check_gelu_tanh_and_mul,
    "gate_heads": model.check_gate_heads,
    "add_gated": model.check_add_gated,
    "empty_expert_weights": model.check_experts,
    "route": model.check_route,
    "experts": model.check_experts,
    "clamped_experts": model.check_clamped_experts,
    "rotary": model.check_rotary,
    "embedding": model.check_embedding,
    "write_kv": model.check_write_kv,
    "rotary_and_write_kv": model.check_rotary_and_write_kv,
    "plan_attention": state.check_attention,
    "paged_attention": state.check_attention,
    "state_rows": state.check_state_rows,
    "gated_delta_inputs": state.check_states,
    "gated_delta_rule": state.check_states,
    "finish_gated_delta": state.check_states,
    "save_states": state.check_snapshots,
    "load_states": state.check_snapshots,
    "admit": admission.check_admit,
    "assemble": step.over_random_steps(step.check_assemble),
    "commit": step.over_random_steps(step.check_commit),
    "put_drafts": step.over_random_steps(step.check_drafts),
    "chain_known": step.over_random_steps(step.check_chain_known),
    "chain_drafted": step.over_random_steps(step.check_chain_drafted),
    "process": sampling.check_process,
    "apply_masks": sampling.check_apply_masks,
    "choose": sampling.check_choose,
    "draft_choose": sampling.check_draft_choose,
    "logprobs": sampling.check_logprobs,
    "hash_rows": sampling.check_hash_rows,
    "verify": sampling.check_verify,
    "text_linear": encoder.check_text_linear,
    "layer_norm": encoder.check_layer_norm,
    "gelu": encoder.check_gelu,
    "gelu_and_mul": encoder.check_gelu_and_mul,
    "plan_texts": encoder.check_text_attention,
    "text_attention": encoder.check_text_attention,
    "project_heads": latent.check_project_heads,
    "rotary_and_write_latent": latent.check_rotary_and_write_latent,
    "latent_attention": latent.check_latent_attention,
    "route_grouped": latent.check_route_grouped,
}

COVERED = (
    *FUNCTIONS,
    *ENCODER_FUNCTIONS,
    "clamped_experts",
    *(name for subject in (LatentKernels, GroupedRouterKernels) for name in vars(subject) if not name.startswith("_")),
)
"""Names of the functions that have a check; those of weight formats have tests of their own."""


def about(stack: str) -> types.ModuleType:
    """The package of a stack, which says on which DEVICE it runs and what NEEDS_GPU; without them it runs anywhere."""
    return importlib.import_module(f"outrider.kernels.{stack}")


def device_of(stack: str) -> str:
    return getattr(about(stack), "DEVICE", "cpu")


def needs_gpu(stack: str) -> dict[str, str]:
    """Functions that Triton's interpreter cannot run, with the reason."""
    return getattr(about(stack), "NEEDS_GPU", {})


def interpreted(stack: str) -> Kernels:
    """The functions of a GPU's stack that the interpreter can run, and plain PyTorch in place of the others."""
    plain, own = load_kernels(("reference",)), exports(stack)
    for name in own.keys() - needs_gpu(stack).keys():
        setattr(plain, name, own[name])
    return plain


def failures(stack: str) -> dict[str, str]:
    """Failures under the interpreter, by function."""
    failed = {}
    kernels = interpreted(stack)
    for name in exports(stack).keys() - needs_gpu(stack).keys():
        try:
            CHECKS[name](Subject(kernels, is_interpreted=True))
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of numpy, about infinities and words that wrap
    use_ordered_products()
    print(json.dumps(failures(sys.argv[1])))
