"""Linear layers, including those that hold several checkpoint tensors in one matrix."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from outrider.layers.context import LayerContext
from outrider.layers.weight_format import Weight, WeightFormat, find_format, store
from outrider.loading.slot import Destination


def empty_parameter(*shape: int, context: LayerContext) -> nn.Parameter:
    """An unfilled parameter of the context's dtype."""
    return nn.Parameter(torch.empty(shape, dtype=context.dtype, device=context.device), requires_grad=False)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Output rows of a layer that share a weight: those of all its pieces, unless their formats differ."""

    weight: Weight
    first: int
    """First output row."""
    pieces: tuple[tuple[str, int], ...]
    """(name, number of rows) of each piece, in the order of the rows."""

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.first + sum(rows for _, rows in self.pieces)


class Linear(nn.Module):
    """y = x Wᵀ + b. With `pieces`, W is several checkpoint tensors stacked by rows.

    `pieces` lists (name, number of rows): (("q_proj", 64), ("k_proj", 16), ("v_proj", 16)). In the checkpoint each
    piece is a sibling of this module, under its own name. The weight format says which tensors a piece has.
    """

    takes_whole = False
    """A checkpoint holds the pieces, never the stacked tensor."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        context: LayerContext,
        *,
        bias: bool = False,
        pieces: tuple[tuple[str, int], ...] = (),
        weight_format: WeightFormat | None = None,
        sensitive: tuple[str, ...] = (),
        tied_to: nn.Parameter | None = None,
    ) -> None:
        """weight_format: overrides that of the context, for layers that no checkpoint quantises. sensitive: pieces that
        are not quantised here, though a checkpoint may hold them quantised. tied_to: the weight [output_size,
        input_size] of another module, to use instead of one of its own."""
        super().__init__()
        assert not pieces or sum(rows for _, rows in pieces) == output_size, f"{pieces} != {output_size} rows"
        self.pieces = pieces
        self.sensitive = sensitive
        self.input_size, self.output_size = input_size, output_size
        self.storage: frozenset[str] = frozenset()
        """Names of parameters that a checkpoint holds in another form."""
        self.segments: tuple[Segment, ...] = ()
        self._context = context
        self._kernels = context.kernels
        self._only: Weight | None = None
        self.is_tied = tied_to is not None
        self.is_always_plain = weight_format is not None or self.is_tied
        if tied_to is not None:
            self._only = Weight(format=find_format("plain"), data=tied_to.data, whole_shape=(output_size, input_size))
            self.weight = tied_to
        elif weight_format is not None or not context.assigns_formats:
            self.allocate([weight_format or context.weight_format] * max(1, len(pieces)))
        self.bias = empty_parameter(output_size, context=context) if bias else None

    def allocate(self, formats: Sequence[WeightFormat]) -> None:
        """Take memory for the weights; `formats` has one for each piece, or one if there are no pieces."""
        pieces = self.pieces or (("", self.output_size),)
        runs: list[tuple[WeightFormat, list[tuple[str, int]]]] = []
        for form, piece in zip(formats, pieces, strict=True):
            rows = (*(count for _, count in runs[-1][1]), piece[1]) if runs else ()
            if runs and runs[-1][0] == form and form.can_join(rows):
                runs[-1][1].append(piece)
            else:
                runs.append((form, [piece]))
        segments: list[Segment] = []
        for form, joined in runs:
            weight = form.empty(
                self._kernels,
                sum(rows for _, rows in joined),
                self.input_size,
                dtype=self._context.dtype,
                device=self._context.device,
            )
            segments.append(Segment(weight, segments[-1].stop if segments else 0, tuple(joined)))
        self._hold(tuple(segments))

    def _hold(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments
        self._only = segments[0].weight if len(segments) == 1 else None
        if self._only is not None and set(map(type, self._rows(segments[0]).values())) <= {Tensor}:
            for name, tensor in self._rows(segments[0]).items():
                assert isinstance(tensor, Tensor), f"{name} is a tensor"
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
            return
        for i, segment in enumerate(segments):
            for name, tensor in segment.weight.tensors().items():
                self.register_parameter(f"{name}_{i}", nn.Parameter(tensor, requires_grad=False))
        self.storage = frozenset(name for name, _ in self.named_parameters() if name != "bias")

    @staticmethod
    def _rows(segment: Segment) -> Mapping[str, Destination]:
        return segment.weight.format.rows(segment.weight, 0, segment.stop - segment.first)

    def forward(self, x: Tensor, *, out_dtype: torch.dtype | None = None) -> Tensor:
        """x [M, input_size] -> [M, output_size], in x's dtype or in out_dtype."""
        if self._only is not None:
            return self._only.format.linear(self._kernels, x, self._only, self.bias, out_dtype=out_dtype)
        outputs = []
        for segment in self.segments:
            bias = None if self.bias is None else self.bias[segment.first : segment.stop]
            form = segment.weight.format
            outputs.append(form.linear(self._kernels, x, segment.weight, bias, out_dtype=out_dtype))
        return torch.cat(outputs, dim=1)

    def refuses(self, form: WeightFormat) -> str | None:
        """The reason why this layer cannot be stored in the format, or None if it can."""
        return None

    @property
    def num_bytes(self) -> int:
        """Size of the weights in memory, and of the bias."""
        return sum(parameter.nbytes for parameter in self.parameters())

    def modules_in_checkpoint(self, prefix: str) -> tuple[str, ...]:
        """Names of the modules that a checkpoint has in place of this one, which is called `prefix`."""
        parent = prefix.rpartition(".")[0]
        return tuple(f"{parent}.{piece}" if parent else piece for piece, _ in self.pieces) or (prefix,)

    def parts(self, prefix: str) -> Mapping[str, Mapping[str, Destination]]:
        """For each parameter, its parts by their names in the checkpoint; none if it is held whole."""
        if not self.pieces and not self.storage:
            return {}
        names = iter(self.modules_in_checkpoint(prefix))
        found: dict[str, dict[str, Destination]] = {}
        for segment in self.segments:
            first = 0
            for _, rows in segment.pieces:
                name = next(names)
                views = dict(segment.weight.format.rows(segment.weight, first, rows))
                if self.bias is not None:
                    start = segment.first + first
                    views["bias"] = self.bias.data[start : start + rows]
                for parameter, view in views.items():
                    found.setdefault(parameter, {})[f"{name}.{parameter}"] = view
                first += rows
        return found

    def whole(self, name: str) -> Destination | None:
        """None: a checkpoint never holds a stacked tensor."""
        return None

    def encoders(self, prefix: str) -> Iterator[tuple[str, Tensor, Callable[[Tensor], None]]]:
        """(name, empty tensor, function that stores it) of the matrix of each piece that is quantised."""
        names = iter(self.modules_in_checkpoint(prefix))
        for segment in self.segments:
            first = 0
            for _, rows in segment.pieces:
                empty = torch.empty(rows, self.input_size, device=self._context.device)
                yield f"{next(names)}.weight", empty, partial(store, segment.weight, first)
                first += rows
