"""`CausalLM.embed` is the only way to the target's embedding table, for the model and for drafters that share it."""

import pytest
import torch

from outrider.layers.decoder import CausalLM
from outrider.layers.embedding import Embedding
from tests.support import request_mix
from tests.support.tiny_heads import random_eagle_head, random_head, save_original
from tests.support.tiny_models import write_tiny_model
from tests.support.tiny_mtp import write_mimo


@pytest.mark.parametrize("method", ["eagle3", "eagle", "mtp", "draft_model"])
def test_the_targets_table_is_read_through_embed_only(method, tmp_path, monkeypatch):
    target, head = tmp_path / "target", tmp_path / "head"
    sizes = {"vocab_size": request_mix.VOCAB, "num_hidden_layers": 4, "max_position_embeddings": 512}
    speculative = {"method": method, "num_speculative_tokens": 2, "model": str(head)}
    if method == "mtp":
        del speculative["model"]
        write_mimo(target, **sizes)
    else:
        write_tiny_model(target, "qwen3", **sizes)
    if method == "eagle3":
        model = random_head(vocab_size=request_mix.VOCAB, draft_vocab_size=40)
        save_original(model, head, with_embedding=False)
    if method == "eagle":
        random_eagle_head(head, vocab_size=request_mix.VOCAB, embedding=torch.ones(request_mix.VOCAB, 64))
    if method == "draft_model":
        speculative["model"] = str(target)
    depth, direct = [0], []
    embed, look_up = CausalLM.embed, Embedding.forward

    def counted(self, batch):
        depth[0] += 1
        try:
            return embed(self, batch)
        finally:
            depth[0] -= 1

    def watched(self, token_ids):
        if not depth[0]:
            direct.append(token_ids)
        return look_up(self, token_ids)

    monkeypatch.setattr(CausalLM, "embed", counted)
    monkeypatch.setattr(Embedding, "forward", watched)
    llm = request_mix.make(target, speculative_config=speculative)
    outputs = request_mix.run(llm, request_mix.make_cases()[1:3])
    assert sum(output.speculation.num_draft_tokens for output in outputs) > 0
    assert direct == []
