"""Qwen3 dense: Llama with RMSNorm on the heads of q and k, before rope."""

from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("Qwen3ForCausalLM",)


class Model(CausalLM):
    """`Qwen3ForCausalLM`."""

    qk_norm = True
