"""Request fields that the endpoints of a pooling model share, and their conversion for the engine.

Names are OpenAI's, and vLLM's where OpenAI has none.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from outrider.core.pooling import PoolingParams
from outrider.server.fields import INT32, WHOLE, QueueFields, RequestId
from outrider.server.not_offered import NOT_OFFERED

NOT_IN_POOLING = {name: remedy for name, remedy in NOT_OFFERED.items() if name not in ("truncation_side",)} | {
    "activation": "Use use_activation.",
    "softmax": "Use use_activation.",
    "stream": "An answer comes whole. Leave the field out.",
    "temperature": "Nothing is sampled. Leave the field out.",
    "max_tokens": "Nothing is generated. Use truncate_prompt_tokens to shorten texts.",
    "embedding_types": "Use encoding_format float or base64.",
    "output_dimension": "Use dimensions.",
    "input_type": "Write the prompt that the model expects in front of the text.",
    "late_chunking_params": "Late chunking is not supported. Send the chunks as texts, or use /pooling by token.",
    "padding": "Texts are not padded: each is computed by itself.",
    "images": "Only text is supported.",
}
"""Fields of other servers, and what to do instead."""


class PoolingFields(QueueFields):
    """Fields of every endpoint of a pooling model."""

    not_offered: ClassVar[Mapping[str, str]] = NOT_IN_POOLING

    user: str | None = Field(None, description="Accepted and ignored.")
    request_id: RequestId | None = Field(None, description="Becomes part of the answer's id.")
    truncate_prompt_tokens: (
        Annotated[int, Field(ge=-1, le=INT32, json_schema_extra={"not": {"const": 0}}), WHOLE] | None
    ) = Field(
        None,
        description="Keep at most this many tokens of each prompt, special tokens included; -1 keeps as many as the "
        "model takes. Without it a prompt that is too long is refused.",
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="The end at which tokens are cut. Default: that of the tokenizer."
    )
    use_activation: bool | None = Field(
        None,
        description="Apply the model's last function: the length of a vector becomes 1, logits become probabilities. "
        "Default: what the model's files say.",
    )

    def params(self, task: str, *, dimensions: int | None = None, normalize: bool | None = None) -> PoolingParams:
        """The engine's parameters for a task. Raises RequestError."""
        return PoolingParams(
            task=task,
            dimensions=dimensions,
            normalize=normalize,
            use_activation=self.use_activation,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
            truncation_side=self.truncation_side,
            priority=self.priority or 0,
        )
