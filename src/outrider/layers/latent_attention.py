"""Latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values of all heads follow from one row of a token.

    [c | r] = kv_a x       c <- norm(c), r <- rope(r)       the row of the token, [c | r]
    q_h     = [n_h | s_h]  s_h <- rope(s_h)                 query of head h, from q_b norm(q_a x) or from q x
    key of head h = [K_h c | r], value = V_h c              K_h and V_h are the rows of kv_b for head h

    score   = n_h · K_h c + s_h · r  =  [K_hᵀ n_h | s_h] · [c | r]
    output  = Σ p V_h c              =  V_h (Σ p c)

All steps, whether prompt, chunk, verification or decoding, use the right-hand sides: attention over rows as they are
stored. A prompt could be computed faster with keys and values written out (192 and 128 numbers a head instead of 576
and 512), but that is another order of summation, with other bits, and then a token's result would depend on how the
request was cut into steps. Decoding could not afford the left-hand sides, which read 71 times as much.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from outrider.attention.base import StepAttention
from outrider.attention.batch import ForwardBatch
from outrider.attention.caches.latent import Latent, LayerLatent
from outrider.core.model_config import LatentConfig, ModelConfig
from outrider.layers.context import LayerContext
from outrider.layers.linear import Linear
from outrider.layers.norm import RMSNorm
from outrider.layers.quantised import FLOATS, missing_kernels
from outrider.layers.rope import Rope
from outrider.layers.weight_format import WeightFormat, find_format
from outrider.loading.slot import Destination, Slot

INNER_EPS = 1e-6
"""eps of the two inner norms, whatever the config says of the others: the releases' own code does not set it."""


class HeadProjection(Linear):
    """kv_b_proj: for each head the rows of its keys, then the rows of its values.

    It is applied from both sides, so its values are needed: a quantised one is stored plain, in the model's dtype.
    """

    _stored: WeightFormat | None = None
    """Its format in the checkpoint, if that is not plain."""

    def __init__(self, shape: LatentConfig, num_heads: int, context: LayerContext) -> None:
        rows = num_heads * (shape.nope_size + shape.value_size)
        super().__init__(shape.kv_rank, rows, context, sensitive=("kv_b_proj",))
        self._per_head = [shape.nope_size, shape.value_size]
        self._shape = (num_heads, sum(self._per_head))
        self._found: dict[str, Tensor] = {}

    def refuses(self, form: WeightFormat) -> str | None:
        if type(form).decode is WeightFormat.decode:
            return "latent attention needs the values of kv_b_proj, and they are not restored from this format"
        return None

    def allocate(self, formats: Sequence[WeightFormat]) -> None:
        (stored,) = formats
        super().allocate([find_format("plain")])
        if stored.name != "plain":
            self._stored, self.storage = stored, frozenset({"weight"})

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Destination]]:
        """The tensors of the format; the weight is filled when all of them have come."""
        if self._stored is None:
            return super().parts(prefix)
        tensors = self._stored.encode(torch.empty(self.output_size, self.input_size, device="meta"))
        return {
            name: {
                f"{prefix}.{name}": Slot(
                    shapes=(tuple(tensor.shape),),
                    dtypes=FLOATS if tensor.dtype in FLOATS else (tensor.dtype,),
                    fill=partial(self._fill, self._stored, name, frozenset(tensors)),
                )
            }
            for name, tensor in tensors.items()
        }

    def _fill(self, stored: WeightFormat, name: str, all_names: frozenset[str], tensor: Tensor) -> None:
        self._found[name] = tensor
        if self._found.keys() == all_names:
            dense = stored.decode(self._found)
            assert dense is not None, f"{stored.name} was refused"
            self.weight.data.copy_(dense)
            self._found.clear()

    def for_queries(self, x: Tensor) -> Tensor:
        """x [M, H, nope_size] -> [M, H, kv_rank]: K_hᵀ of each head."""
        keys, _ = self.weight.unflatten(0, self._shape).split(self._per_head, dim=1)
        return self._kernels.project_heads(x, keys.transpose(1, 2))

    def for_values(self, x: Tensor) -> Tensor:
        """x [M, H, kv_rank] -> [M, H, value_size]: V_h of each head."""
        _, values = self.weight.unflatten(0, self._shape).split(self._per_head, dim=1)
        return self._kernels.project_heads(x, values)


class LatentAttention(nn.Module):
    """Latent attention of one layer."""

    def __init__(self, config: ModelConfig, context: LayerContext, *, rope: Rope) -> None:
        super().__init__()
        assert config.latent is not None, f"{config.architecture} has no latent attention"
        self.shape = shape = config.latent
        self.num_heads, self.query_size = config.num_heads, shape.nope_size + shape.rope_size
        self.scale = config.attention_scale or self.query_size**-0.5
        queries = self.num_heads * self.query_size
        first = ("q_proj", queries) if shape.q_rank is None else ("q_a_proj", shape.q_rank)
        pieces = (first, ("kv_a_proj_with_mqa", shape.kv_rank + shape.rope_size))
        self._sizes = [rows for _, rows in pieces]
        self.qkv_a_proj = Linear(config.hidden_size, sum(self._sizes), context, pieces=pieces)
        self.q_a_layernorm = self.q_b_proj = None
        if shape.q_rank is not None:
            self.q_a_layernorm = RMSNorm(shape.q_rank, INNER_EPS, context)
            self.q_b_proj = Linear(shape.q_rank, queries, context)
        self.kv_a_layernorm = RMSNorm(shape.kv_rank, INNER_EPS, context)
        self.kv_b_proj = HeadProjection(shape, self.num_heads, context)
        self.o_proj = Linear(self.num_heads * shape.value_size, config.hidden_size, context)
        self._rope = (rope,)  # shared by all layers; in a tuple, so that it is not a child of each
        self._kernels = context.kernels
        self._dtype = context.dtype

    @property
    def cache_spec(self) -> Latent:
        """Shape of this layer's rows."""
        return Latent(rank=self.shape.kv_rank, rope_size=self.shape.rope_size, dtype=self._dtype)

    def forward(self, x: Tensor, batch: ForwardBatch, cache: LayerLatent, attention: StepAttention) -> Tensor:
        """x [M, H] -> [M, H]; writes the rows of the batch into the cache first."""
        q, row = self.qkv_a_proj(x).split(self._sizes, dim=1)
        if self.q_a_layernorm is not None and self.q_b_proj is not None:
            q = self.q_b_proj(self.q_a_layernorm(q))
        plain, rotated = q.unflatten(1, (self.num_heads, self.query_size)).split(
            [self.shape.nope_size, self.shape.rope_size], dim=2
        )
        (rope,) = self._rope
        rotated = self._kernels.rotary_and_write_latent(
            rotated,
            row,
            self.kv_a_layernorm.weight,
            batch.positions,
            rope.cos_sin,
            cache.rows,
            batch.groups[cache.group].slots,
            eps=INNER_EPS,
            is_interleaved=self.shape.is_interleaved,
        )
        queries = torch.cat([self.kv_b_proj.for_queries(plain), rotated], dim=2)
        attended = attention.attend_latent(queries, cache, rank=self.shape.kv_rank, scale=self.scale)
        return self.o_proj(self.kv_b_proj.for_values(attended).flatten(1))


def missing_latent_kernels(context: LayerContext) -> str | None:
    """A sentence about the kernels of latent attention and its router that the stacks lack; None if there are all."""
    names = ("project_heads", "rotary_and_write_latent", "latent_attention", "route_grouped")
    return missing_kernels(context.kernels, *names)
