"""Models in one GGUF file: its header, and config, tensors and vocabulary in the terms of the Hugging Face layout."""
