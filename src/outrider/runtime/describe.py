"""Describes the choices of a worker and their reasons, for a person to read: `outrider info` and the log print them."""

from outrider.attention.caches.delta_state import StateCache
from outrider.core.draft_cost import DraftCost
from outrider.device.graphs import Preparation
from outrider.kernels import describe_stacks
from outrider.layers.assignment import count_formats
from outrider.layers.rope import is_long
from outrider.runtime.worker import Worker

_MIB = float(1 << 20)


def describe(worker: Worker, *, draft_cost: DraftCost | None = None) -> list[tuple[str, str]]:
    """Lines of (name, value). `draft_cost`: if it was measured."""
    config, platform, selection = worker.model_config, worker.platform, worker.selection
    return [
        ("model", f"{config.architecture}, {config.num_layers} layers, vocabulary {config.vocab_size}"),
        ("max_model_len", str(worker.max_model_len)),
        *_rope(worker),
        ("platform", ", ".join(f"{name} {value}" for name, value in platform.key(worker.dtype).items())),
        ("device", f"{platform.summary}: {platform.reason}"),
        ("kernels", describe_stacks(worker.kernels)),
        *_weights(worker),
        ("attention backend", f"{selection.backend.name}: {selection.reason}"),
        *(("  not " + name, reason) for name, reason in selection.refused),
        *_blocks(worker),
        ("KV memory", worker.kv_budget.explanation),
        *(_states(worker.states, worker.num_snapshots) if worker.states is not None else []),
        ("graphs", _graphs(worker.graphs.preparation) if worker.graphs is not None else "none"),
        ("drafter", _drafter(worker)),
        *([("  measured", str(draft_cost))] if draft_cost is not None else []),
        ("exact", _exactness(worker)),
    ]


def _rope(worker: Worker) -> list[tuple[str, str]]:
    """The factors of longrope; nothing for other ropes."""
    rope = worker.model_config.rope
    if rope.rope_type != "longrope":
        return []
    kind, relation = ("long", "above") if is_long(rope, worker.max_model_len) else ("short", "not above")
    original = rope.original_max_position_embeddings
    return [("rope", f"longrope, {kind} factors: max_model_len is {relation} the original {original}")]


def _weights(worker: Worker) -> list[tuple[str, str]]:
    """The formats of a quantised model's layers; nothing if it is plain."""
    quantization = worker.model_config.quantization
    if quantization is None:
        return []
    counts = [f"{number} × {name}" for name, number in sorted(count_formats(worker.model).items())]
    return [("weights", "; ".join([f"{quantization.method}: {', '.join(counts)}", *quantization.notes]))]


def _blocks(worker: Worker) -> list[tuple[str, str]]:
    """One line per group of layers."""
    lines = []
    for group, count in zip(worker.groups, worker.num_blocks, strict=True):
        name = "KV blocks" if group.window is None else f"KV blocks, window {group.window}"
        lines.append((name, f"{count - 1} of {group.block_size} tokens"))
    return lines


def _states(states: StateCache, num_snapshots: int | None) -> list[tuple[str, str]]:
    return [
        ("states", f"{len(states)} layers, {states.bytes_per_row / _MIB:.2f} MiB a request"),
        ("snapshots", f"{num_snapshots} of {states.bytes_per_snapshot / _MIB:.2f} MiB, for prefixes in the cache"),
    ]


def _graphs(made: Preparation) -> str:
    return (
        f"{made.num_decoding} of decoding, up to {made.most_rows} rows, and {made.num_mixed} of steps with prompts, up"
        f" to {made.most_tokens} tokens: {made.seconds:.1f} s, {made.num_bytes / _MIB:.0f} MiB"
    )


def _drafter(worker: Worker) -> str:
    if worker.config.speculative is None or worker.drafter is None:
        return "none"
    invariant = "row-invariant" if worker.drafter.is_row_invariant else "not row-invariant"
    widths = [str(width) for width in worker.config.draft_widths]
    drafts = " or ".join(filter(None, (", ".join(widths[:-1]), widths[-1]))) + " drafts a step"
    return f"{worker.config.speculative.method}, {drafts}, {invariant}"


def _exactness(worker: Worker) -> str:
    verdict = worker.verdict
    if worker.is_exact:
        said = "yes: tokens depend on weights, prompt, parameters and seed only"
        if verdict is None:
            return said
        return (
            f"{said} (kernels passed {'the short check' if verdict.is_quick else '`outrider verify`'} on this device)"
        )
    if worker.step_function.synthetic is not None:
        return "NO: acceptance is synthetic, for benchmarks; the tokens are not the model's"
    if verdict is not None and verdict.differences:
        return f"NO: kernels failed their check on this device, {verdict.differences[0]}. Run `outrider verify`"
    return "NO: this platform or attention backend does not promise it"
