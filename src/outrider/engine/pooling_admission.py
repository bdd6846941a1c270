"""Turns texts, ids and pairs into checked pooling requests; they are refused here, before anything else changes.

Counts are exact: a text is cut as ids, before special tokens and before a pair is built, so the number of ids is the
usage. Knows the abilities of a model, not its layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from outrider.core.content import ContentKey
from outrider.core.errors import RequestError
from outrider.core.pooling import (
    CLASSIFY,
    EMBED,
    SCORE,
    TASKS,
    TOKEN_CLASSIFY,
    TOKEN_EMBED,
    PairOptions,
    PairTemplate,
    PoolingAbilities,
    PoolingParams,
)
from outrider.core.request import Request
from outrider.core.sampling_params import SamplingParams
from outrider.engine.admission import Prompt
from outrider.engine.pair_batch import PairBatch
from outrider.engine.pair_encoding import Cut, Encoded
from outrider.engine.tokenizer import Tokenizer

GENERATES = "this engine generates text, and makes no vectors or scores. Start it with runner='pooling'."
POOLS = "this engine makes vectors and scores, and generates no text. Start it with runner='generate'."
_PROMPT_KEYS = {"prompt_token_ids", "prompt"}
_MAX_CUT_CHARACTERS = 1 << 18
"""Characters that a text may have if it is cut, even if the model takes fewer tokens."""


class PoolingAdmission:
    """Checks requests against one model that pools. Threads may share it."""

    def __init__(
        self, *, tokenizer: Tokenizer | None, vocab_size: int, max_model_len: int, abilities: PoolingAbilities
    ) -> None:
        self.abilities = abilities
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len

    def request(
        self,
        prompt: Prompt,
        params: PoolingParams,
        *,
        request_id: str,
        add_special_tokens: bool = True,
        content_keys: Sequence[ContentKey] = (),
    ) -> Request:
        """A checked request for one text: text, or {"prompt_token_ids": [...]}. Raises RequestError with the value, the
        reason and the remedy."""
        params = self._resolved(params)
        cut = self._cut(params)
        if isinstance(prompt, str):
            self._check_length(prompt, cut)
            encoded = self._need_tokenizer(prompt).encode_cut(prompt, cut=cut, add_special_tokens=add_special_tokens)
            return self._request(encoded, params, text=prompt, request_id=request_id, content_keys=content_keys)
        if not isinstance(prompt, dict) or "prompt_token_ids" not in prompt or set(prompt) - _PROMPT_KEYS:
            raise RequestError(f"prompt={prompt!r} is not a prompt. Give text or {{'prompt_token_ids': [...]}}.")
        given = prompt["prompt_token_ids"]
        if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
            raise RequestError(f"prompt_token_ids={given!r} is a {type(given).__name__}. Give a list of ids.")
        ids = list(given)
        if cut.max_tokens is not None and len(ids) > cut.max_tokens:
            ids = ids[-cut.max_tokens :] if cut.side == "left" else ids[: cut.max_tokens]
        return self._request(
            Encoded(ids, []), params, text=prompt.get("prompt"), request_id=request_id, content_keys=content_keys
        )

    def pairs(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        params: PoolingParams | None = None,
        *,
        options: PairOptions | None = None,
        new_id: Callable[[], str],
        content_keys: Sequence[ContentKey] = (),
    ) -> PairBatch:
        """Checked requests for the scores of pairs: as many queries as documents, or one query for all documents.

        new_id: called for the id of each request. Raises RequestError with the value, the reason and the remedy.
        """
        params, options = params or PoolingParams(task=SCORE), options or PairOptions()
        if params.task not in (None, SCORE):
            raise RequestError(f"task={params.task!r} is not that of a pair. Leave it unset.")
        if not documents or len(queries) not in (1, len(documents)):
            raise RequestError(
                f"{len(queries)} queries and {len(documents)} documents make no pairs. Give one query for all"
                " documents, or one for each."
            )
        self._check_pairs(options)
        if self.abilities.pair_input == "joined":
            params = self._resolved(replace(params, task=SCORE))
            cut = self._cut(params)
            all_queries = list(queries) * (len(documents) if len(queries) == 1 else 1)
            requests = [
                self._request(
                    self._joined(query, document, cut=cut, options=options),
                    params,
                    text=None,
                    request_id=new_id(),
                    content_keys=content_keys,
                )
                for query, document in zip(all_queries, documents, strict=True)
            ]
            return PairBatch(requests=requests, num_queries=0)
        by_token = self.abilities.pair_input == "token_vectors"
        params = replace(params, task=TOKEN_EMBED if by_token else EMBED)
        limits = [options.max_tokens_per_query] * len(queries) + [options.max_tokens_per_doc] * len(documents)
        params, requests = self._resolved(params), []
        for text, limit in zip((*queries, *documents), limits, strict=True):
            cut = replace(self._cut(params), max_first=limit)
            self._check_length(text, cut)
            encoded = self._need_tokenizer(text).encode_cut(text, cut=cut)
            requests.append(self._request(encoded, params, text=text, request_id=new_id(), content_keys=content_keys))
        return PairBatch(requests=requests, num_queries=len(queries))

    def _joined(self, query: str, document: str, *, cut: Cut, options: PairOptions) -> Encoded:
        """Ids of a pair in one prompt."""
        template = self.abilities.pair_template
        for text, limit in ((query, options.max_tokens_per_query), (document, options.max_tokens_per_doc)):
            self._check_length(text, replace(cut, max_first=limit))
        if template is not None:
            return self._in_template(template, query, document, cut=cut, options=options)
        if options.instruction is not None:
            raise RequestError(
                f"instruction={options.instruction!r} has no place: this model reads a query and a document only."
                " Leave it unset."
            )
        limits = replace(cut, max_first=options.max_tokens_per_query, max_second=options.max_tokens_per_doc)
        return self._need_tokenizer(query).encode_cut(query, document, cut=limits)

    def _in_template(
        self, template: PairTemplate, query: str, document: str, *, cut: Cut, options: PairOptions
    ) -> Encoded:
        """A query and a document are cut as texts, at the end of a token, so a limit above their length changes
        nothing; the ids around them always stay."""
        tokenizer = self._need_tokenizer(query)
        instruction = template.instruction if options.instruction is None else options.instruction
        query = tokenizer.cut_text(query, options.max_tokens_per_query)
        document = tokenizer.cut_text(document, options.max_tokens_per_doc)
        middle = f"{template.instruction_label}{instruction}{template.query_label}{query}"
        middle = f"{middle}{template.document_label}{document}"
        before, after = (
            tokenizer.encode_cut(text, add_special_tokens=False).token_ids for text in (template.before, template.after)
        )
        if cut.max_tokens is not None:
            left = cut.max_tokens - len(before) - len(after)
            if left < 1:
                raise RequestError(
                    f"truncate_prompt_tokens={cut.max_tokens} leaves no text beside the {len(before) + len(after)}"
                    " tokens of the model's template. Raise it."
                )
            cut = replace(cut, max_tokens=left)
        ids = tokenizer.encode_cut(middle, cut=cut, add_special_tokens=False).token_ids
        return Encoded([*before, *ids, *after], [])

    def _request(
        self,
        encoded: Encoded,
        params: PoolingParams,
        *,
        text: str | None,
        request_id: str,
        content_keys: Sequence[ContentKey],
    ) -> Request:
        ids = encoded.token_ids
        if not ids:
            raise RequestError("the prompt is empty. Give at least one token.")
        if len(ids) > self._max_model_len:
            raise RequestError(
                f"the prompt has {len(ids)} tokens and max_model_len={self._max_model_len}. Shorten it, or cut it with"
                " truncate_prompt_tokens=-1."
            )
        for token_id in ids:
            if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < self._vocab_size:
                raise RequestError(
                    f"prompt_token_ids holds {token_id!r}, which is not a token id. Use 0 to {self._vocab_size - 1}."
                )
        is_by_token = params.task in (TOKEN_EMBED, TOKEN_CLASSIFY)
        mark = self.abilities.text_mark
        text_start = mark.text_start(ids) if mark is not None else 0
        if text_start == len(ids):
            raise RequestError("the prompt has no text behind its instruction. Give at least one token.")
        return Request(
            request_id=request_id,
            prompt=text,
            prompt_token_ids=tuple(ids),
            params=_sampling_params(params.priority),
            seed=0,
            eos_token_ids=(),
            max_total_tokens=len(ids),
            pooling=params,
            text_start=text_start,
            reads_prefix_cache=self.abilities.reads_prefix_cache and not is_by_token,
            token_type_ids=tuple(encoded.type_ids) if any(encoded.type_ids) else (),
            content_keys=tuple(content_keys),
        )

    def _resolved(self, params: PoolingParams) -> PoolingParams:
        """Parameters with a task, and with the model's own choices where the caller made none."""
        abilities = self.abilities
        task = params.task or abilities.default_task
        if task not in abilities.tasks:
            raise RequestError(
                f"task={task!r} is not one of this model: it has {', '.join(abilities.tasks)}. {_REMEDIES[task]}"
            )
        self._check_dimensions(params)
        columns = params.returned_token_ids or ()
        if columns and max(columns) >= max(abilities.num_labels, 1):
            raise RequestError(
                f"returned_token_ids holds {max(columns)}, and the model has {abilities.num_labels} labels. Use 0 to"
                f" {abilities.num_labels - 1}."
            )
        activates = abilities.activates if params.activates is None else params.activates
        return replace(params, task=task, normalize=None, use_activation=activates)

    def _check_dimensions(self, params: PoolingParams) -> None:
        size, allowed = self.abilities.embedding_size, self.abilities.matryoshka_dimensions
        wanted = params.dimensions
        if wanted is None or wanted == size:
            return
        if size is None:
            raise RequestError(f"dimensions={wanted} is for vectors, and this model makes none. Leave it unset.")
        if allowed is None:
            raise RequestError(
                f"dimensions={wanted}: this model's vectors have {size} numbers, and nothing says that it was trained"
                ' for fewer. Leave it unset, or add "is_matryoshka": true to config.json if it was.'
            )
        if wanted > size or (allowed and wanted not in allowed):
            choices = f"one of {', '.join(map(str, allowed))}" if allowed else f"at most {size}"
            raise RequestError(f"dimensions={wanted} is not offered by this model: use {choices}.")

    def _cut(self, params: PoolingParams) -> Cut:
        most = params.truncate_prompt_tokens
        if most is not None and most > self._max_model_len:
            raise RequestError(
                f"truncate_prompt_tokens={most} is above max_model_len={self._max_model_len}. Lower it, or use -1."
            )
        side = params.truncation_side or (self._tokenizer.truncation_side if self._tokenizer else "right")
        return Cut(max_tokens=self._max_model_len if most == -1 else most, side=side)

    def _check_pairs(self, options: PairOptions) -> None:
        if self.abilities.pair_input is None:
            raise RequestError(
                f"this model scores no pairs: it has {', '.join(self.abilities.tasks)}. {_REMEDIES[SCORE]}"
            )
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            if getattr(options, name) >= self._max_model_len:
                raise RequestError(
                    f"{name}={getattr(options, name)} is not below max_model_len={self._max_model_len}. Lower it, or"
                    " use 0 for no limit."
                )
        if options.instruction is not None and self.abilities.pair_template is None:
            raise RequestError(
                f"instruction={options.instruction!r} has no place: this model reads a query and a document only."
                " Leave it unset."
            )

    def _check_length(self, text: str, cut: Cut) -> None:
        """Refuse a text that is certainly too long before it is turned into ids, and what is not text."""
        if not isinstance(text, str):
            raise RequestError(f"{text!r} is a {type(text).__name__}. Give text.")
        is_cut = cut.max_tokens is not None or cut.max_first
        if self._tokenizer is not None and len(text) > (_MAX_CUT_CHARACTERS if is_cut else 0):
            self._tokenizer.check_length(text, max_tokens=self._max_model_len)

    def _need_tokenizer(self, text: str) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError(
                f"prompt={text!r} is text, and there is no tokenizer. Pass {{'prompt_token_ids': [...]}}."
            )
        return self._tokenizer


_REMEDIES = {
    EMBED: "Use a model that makes vectors.",
    TOKEN_EMBED: "Use a model that makes vectors.",
    SCORE: "Use a reranker, a cross-encoder or a model that makes vectors.",
    CLASSIFY: "Use a model with a head for classes.",
    TOKEN_CLASSIFY: "Use a model with a head for classes of tokens.",
}
assert _REMEDIES.keys() == set(TASKS)


@lru_cache
def _sampling_params(priority: int) -> SamplingParams:
    """Parameters that ask for nothing, for the parts of the engine that know no pooling."""
    return SamplingParams(temperature=0.0, max_tokens=1, priority=priority)
