"""The mixture of experts: a router, its experts, and the shared expert of the models that have one.

    y = Σ wⱼ MLPⱼ(x) over the chosen experts, in the router's order;   with a shared expert  y + σ(g x) · MLP(x)

The router and the shared expert's gate are one product in fp32. With a clamped gate (`MoeConfig.clamped_gate`) router
and experts have biases.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from outrider.core.errors import UnsupportedError
from outrider.core.model_config import ClampedGate, ModelConfig
from outrider.kernels.interface.clamped import ClampedForm
from outrider.kernels.interface.model import Routing
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear, empty_parameter
from outrider.layers.mlp import GatedMLP
from outrider.layers.weight_format import Weight, WeightFormat, find_format, store
from outrider.loading.slot import Destination


class Experts(nn.Module):
    """The gated MLPs of all experts. A checkpoint holds them packed, or expert by expert."""

    takes_whole = True
    """A checkpoint may hold one packed tensor of all experts."""

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        width: int,
        context: LayerContext,
        *,
        clamped_gate: ClampedGate | None = None,
    ) -> None:
        super().__init__()
        self.num_experts, self.hidden_size, self.width = num_experts, hidden_size, width
        self._form: ClampedForm | None = None
        if clamped_gate is not None:
            self.gate_up_proj_bias = empty_parameter(num_experts, 2 * width, context=context)
            self.down_proj_bias = empty_parameter(num_experts, hidden_size, context=context)
            self._form = ClampedForm(
                gate_up_bias=self.gate_up_proj_bias,
                down_bias=self.down_proj_bias,
                alpha=clamped_gate.alpha,
                limit=clamped_gate.limit,
            )
        self.storage: frozenset[str] = frozenset()
        """Names of parameters that a checkpoint holds in another form."""
        self._context = context
        self._kernels = context.kernels
        if not context.assigns_formats:
            self.allocate(context.weight_format)

    def allocate(self, weight_format: WeightFormat) -> None:
        """Take memory for the weights. Raises UnsupportedError if they cannot be computed with in this format."""
        reason = None if self._form is None else weight_format.refuses_clamped(self._kernels)
        if reason is not None:
            raise UnsupportedError(f"experts with biases and a clamped gate cannot run here: {reason}.")
        self._format = weight_format
        self.gate_up = self._empty(2 * self.width, self.hidden_size)  # [E, 2 × width, hidden_size], gate rows first
        self.down = self._empty(self.hidden_size, self.width)  # [E, hidden_size, width]
        for projection, weight in (("gate_up_proj", self.gate_up), ("down_proj", self.down)):
            rows = self._format.rows(weight.expert(0), 0, weight.whole_shape[0])
            if all(isinstance(view, Tensor) for view in rows.values()):
                for name, tensor in self._format.rows(weight, 0, weight.whole_shape[0]).items():
                    assert isinstance(tensor, Tensor), f"{name} is a tensor"
                    self.register_parameter(_packed(projection, name), nn.Parameter(tensor, requires_grad=False))
            else:
                for name, tensor in weight.tensors().items():
                    parameter = nn.Parameter(tensor, requires_grad=False)
                    self.register_parameter(f"{projection}_{name}", parameter)
                self.storage |= {f"{projection}_{name}" for name in weight.tensors()}

    def _empty(self, output_size: int, input_size: int) -> Weight:
        return self._format.empty(
            self._kernels,
            output_size,
            input_size,
            dtype=self._context.dtype,
            device=self._context.device,
            num_experts=self.num_experts,
        )

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [M, hidden_size] -> [M, hidden_size], the weighted sum of each token's experts."""
        if self._form is None:
            return self._format.experts(self._kernels, x, self.gate_up, self.down, routing)
        return self._format.clamped_experts(self._kernels, x, self.gate_up, self.down, routing, self._form)

    def modules_in_checkpoint(self, prefix: str) -> tuple[str, ...]:
        """Names of the modules that a checkpoint has in place of this one, which is called `prefix`."""
        projections = ("gate_proj", "up_proj", "down_proj")
        return tuple(f"{prefix}.{i}.{projection}" for i in range(self.num_experts) for projection in projections)

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Destination]]:
        """For each packed parameter, the tensors of every expert by their names in the checkpoint."""
        found: dict[str, dict[str, Destination]] = {}
        for projection, weight, first, rows in self._projections():
            packed = "down_proj" if weight is self.down else "gate_up_proj"
            for i in range(self.num_experts):
                for name, view in self.rows(packed, first, rows, expert=i).items():
                    found.setdefault(_packed(packed, name), {})[f"{prefix}.{i}.{projection}.{name}"] = view
        return found

    def whole(self, name: str) -> Destination | None:
        """The destination of the packed tensor called `name` in a checkpoint; None if the format has none."""
        for projection, weight in (("gate_up_proj", self.gate_up), ("down_proj", self.down)):
            for last, view in self.rows(projection, 0, weight.whole_shape[0]).items():
                if _packed(projection, last) == name:
                    return view
        return None

    def rows(self, projection: str, first: int, count: int, *, expert: int | None = None) -> Mapping[str, Destination]:
        """Output rows [first, first + count) of "gate_up_proj" or "down_proj", of one expert or of all, by the last
        part of their names in a checkpoint."""
        is_down = projection == "down_proj"
        weight = self.down if is_down else self.gate_up
        found = dict(self._format.rows(weight if expert is None else weight.expert(expert), first, count))
        if self._form is not None:
            bias = self._form.down_bias if is_down else self._form.gate_up_bias
            found["bias"] = (bias if expert is None else bias[expert])[..., first : first + count]
        return found

    def encoders(self, prefix: str) -> Iterator[tuple[str, Tensor, Callable[[Tensor], None]]]:
        """(name, empty tensor, function that stores it) of the matrices of each expert, if they are quantised."""
        for i in range(self.num_experts):
            for projection, weight, first, rows in self._projections():
                empty = torch.empty(rows, weight.whole_shape[1], device=self._context.device)
                yield f"{prefix}.{i}.{projection}.weight", empty, partial(store, weight.expert(i), first)

    def _projections(self) -> tuple[tuple[str, Weight, int, int], ...]:
        """(name, weight, first row, number of rows) of each projection of an expert."""
        return (
            ("gate_proj", self.gate_up, 0, self.width),
            ("up_proj", self.gate_up, self.width, self.width),
            ("down_proj", self.down, 0, self.hidden_size),
        )


def _packed(projection: str, name: str) -> str:
    """Name of a packed tensor of all experts: `gate_up_proj`, `gate_up_proj_scale`, `gate_up_proj_bias`."""
    return f"{projection}_bias" if name == "bias" else projection + name.removeprefix("weight")


class MoE(nn.Module):
    """The MLP of a layer in a model with experts."""

    router_name = "gate"
    """Name of the router in the checkpoint."""
    experts_class: type[Experts] = Experts
    """The experts, and how a checkpoint holds them."""

    def __init__(self, config: ModelConfig, context: LayerContext) -> None:
        super().__init__()
        assert config.moe is not None, f"{config.architecture} has no experts"
        self.config = config.moe
        self._kernels = context.kernels
        num_experts, shared = config.moe.num_experts, config.moe.shared_intermediate_size
        pieces: tuple[tuple[str, int], ...] = ((self.router_name, num_experts),)
        if shared:
            pieces += (("shared_expert_gate", 1),)
        clamped_gate = config.moe.clamped_gate
        self.router = Linear(
            config.hidden_size,
            num_experts + bool(shared),
            context,
            bias=clamped_gate is not None,
            pieces=pieces,
            weight_format=find_format("plain"),
        )
        self.experts = self.experts_class(
            num_experts, config.hidden_size, config.moe.intermediate_size, context, clamped_gate=clamped_gate
        )
        self.shared_expert = GatedMLP(config, context, width=shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """x [M, H] -> [M, H]."""
        num_experts = self.config.num_experts
        logits = self.router(x, out_dtype=torch.float32)
        routing = self._kernels.route(
            logits[:, :num_experts], top_k=self.config.num_experts_per_tok, is_normalized=self.config.is_normalized
        )
        y = self.experts(x, routing)
        if self.shared_expert is None:
            return y
        return self._kernels.add_gated(y, self.shared_expert(x), logits[:, num_experts])
