"""Llama 2 and 3: the shared decoder as it is."""

from outrider.layers.decoder import CausalLM

ARCHITECTURES = ("LlamaForCausalLM",)


class Model(CausalLM):
    """`LlamaForCausalLM`."""
