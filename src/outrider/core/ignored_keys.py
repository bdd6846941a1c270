"""Keys of config.json that never change what a decoder computes, by origin, each group with its reason.

The list has no key that could mislead, such as quantization_config, sliding_window or tie_word_embeddings: models read
those. NEUTRAL lists keys of other architectures with the values that change nothing.
"""

from collections.abc import Mapping

from outrider.core.config_reader import ConfigReader

IGNORED: Mapping[str, tuple[str, ...]] = {
    "names, versions and files of the tool that saved the config": (
        "_name_or_path", "name_or_path", "model_name", "_commit_hash", "transformers_version", "auto_map",
        "custom_pipelines", "base_model_name_or_path", "unsloth_version", "unsloth_fixed", "axolotl_version",
        "peft_version", "trl_version", "llamafactory_version", "swift_version", "optimum_version", "mlx_version",
        "transformers.js_config", "model_revision", "revision", "license", "language", "tags", "library_name",
        "tokenizer_class", "processor_class", "prefix", "task_specific_params", "finetuning_task",
    ),
    "training only: initialisation": (
        "initializer_range", "initializer_factor", "init_std", "init_method", "use_scaled_init_method", "_fast_init",
    ),
    "training only: dropout, which inference does not apply": (
        "attention_dropout", "attn_dropout", "attention_probs_dropout_prob", "attention_dropout_prob", "hidden_dropout",
        "hidden_dropout_prob", "dropout", "resid_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "embd_dropout",
        "activation_dropout", "classifier_dropout", "mlp_dropout", "layerdrop",
    ),
    "training only: losses of a mixture's router": (
        "router_aux_loss_coef", "router_z_loss_coef", "aux_loss_alpha", "seq_aux", "output_router_logits",
        "router_jitter_noise", "load_balancing_loss_weight",
    ),
    "training only: how the run was set up": (
        "gradient_checkpointing", "_gradient_checkpointing", "use_reentrant", "pretraining_tp", "pretraining_pp",
        "tensor_parallel_degree", "sequence_parallel", "ddp_find_unused_parameters", "fp16", "bf16", "tf32",
        "use_bfloat16", "loss_type", "label_smoothing", "z_loss", "fused_linear_cross_entropy", "lora_r", "lora_alpha",
        "lora_dropout", "lora_target_modules", "neftune_noise_alpha", "train_batch_size", "learning_rate",
        "weight_decay", "warmup_steps", "max_steps", "num_train_epochs", "seed", "freeze_backbone",
    ),
    "lengths of the tokenizer or the training data": (
        "model_max_length", "max_sequence_length", "max_seq_length", "tokenizer_model_max_length",
        "tokenizer_padding_side", "padding_side",
    ),
    "labels of classification heads": (
        "id2label", "label2id", "num_labels", "_num_labels", "problem_type",
    ),
    "which implementation another library runs, and what its forward() returns": (
        "use_cache", "cache_implementation", "attn_implementation", "_attn_implementation",
        "_attn_implementation_autoset", "_attn_implementation_internal", "_experts_implementation",
        "_flash_attn_2_enabled", "use_flash_attn", "use_flash_attention", "use_flash_attention_2", "use_sdpa",
        "use_cutlass_fused_rmsnorm", "fused_rms_norm", "use_fused_rope", "use_liger_kernel", "compile_mode",
        "torchscript", "output_past", "return_dict", "use_return_dict", "output_attentions", "output_hidden_states",
        "output_scores", "return_dict_in_generate", "chunk_size_feed_forward", "tf_legacy_loss", "gguf_file",
        "base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan", "distributed_config",
    ),
    "ids that generate() pads or begins with; the tokenizer and the request say them here": (
        "bos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id", "bos_token",
        "eos_token", "pad_token", "unk_token", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id",
        "vocab_pad_token_id",
    ),
    "defaults of generate(); sampling parameters come with the request": (
        "temperature", "top_p", "top_k", "typical_p", "min_p", "do_sample", "num_beams", "num_beam_groups",
        "diversity_penalty", "repetition_penalty", "encoder_no_repeat_ngram_size", "no_repeat_ngram_size",
        "length_penalty", "early_stopping", "max_length", "min_length", "max_new_tokens", "min_new_tokens",
        "num_return_sequences", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
        "exponential_decay_length_penalty", "remove_invalid_values", "renormalize_logits", "generation_config",
    ),
}  # fmt: skip
"""Reason -> keys."""

NEUTRAL: tuple[tuple[str, tuple[object, ...], str], ...] = (
    ("quantization_config", ({},), "weights are not quantised"),
    ("compression_config", ({},), "weights are not quantised"),
    ("mlp_bias", (False,), "no biases"),
    ("attention_bias", (False,), "no biases"),
    ("qkv_bias", (False,), "no biases"),
    ("use_bias", (False,), "no biases"),
    ("attention_out_bias", (False,), "no biases"),
    ("use_qk_norm", (False,), "heads are not normalised"),
    ("qk_layernorm", (False,), "heads are not normalised"),
    ("clip_qkv", (), "nothing is clipped"),
    ("final_logit_softcapping", (), "no soft-capping"),
    ("attn_logit_softcapping", (), "no soft-capping"),
    ("query_pre_attn_scalar", (), "the usual scale"),
    ("embedding_multiplier", (1, 1.0), "a factor of one"),
    ("residual_multiplier", (1, 1.0), "a factor of one"),
    ("logits_scaling", (1, 1.0), "a factor of one"),
    ("logit_scale", (1, 1.0), "a factor of one"),
    ("attention_multiplier", (), "the usual scale"),
    ("scale_emb", (1, 1.0), "a factor of one"),
    ("routed_scaling_factor", (1, 1.0), "a factor of one"),
    ("rope_local_base_freq", (), "one rope for all layers"),
    ("rope_interleaved", (False,), "rotated halves, as everywhere here"),
    ("partial_rotary_factor", (1, 1.0), "the whole head is rotated"),
    ("rotary_pct", (1, 1.0), "the whole head is rotated"),
    ("no_rope_layers", ([],), "all layers have positions"),
    ("no_rope_layer_interval", (), "all layers have positions"),
    ("attention_chunk_size", (), "attention is not chunked"),
    ("sliding_window", (), "no window"),
    ("sliding_window_pattern", (), "no window"),
    ("use_sliding_window", (False,), "no window"),
    ("num_experts", (0,), "no experts"),
    ("num_local_experts", (0,), "no experts"),
    ("n_routed_experts", (0,), "no experts"),
    ("n_shared_experts", (0,), "no experts"),
    ("shared_expert_intermediate_size", (0,), "no shared expert"),
    ("num_nextn_predict_layers", (0,), "no prediction module"),
    ("mtp_num_hidden_layers", (0,), "no prediction module"),
    ("q_lora_rank", (), "projections are not factored"),
    ("kv_lora_rank", (), "projections are not factored"),
    ("num_kv_shared_layers", (0,), "every layer has its own keys and values"),
    ("vision_config", ({},), "text only"),
    ("audio_config", ({},), "text only"),
    ("text_config", ({},), "text only"),
    ("is_encoder_decoder", (False,), "a decoder"),
    ("is_decoder", (True, False), "decoder or not is said by the architecture"),
    ("is_causal", (True,), "attention is causal"),
    ("use_bidirectional_attention", (False,), "attention is causal"),
    ("add_cross_attention", (False,), "no encoder"),
    ("cross_attention_hidden_size", (), "no encoder"),
    ("tie_encoder_decoder", (False,), "no encoder"),
    ("pruned_heads", ({},), "all heads are there"),
)
"""(key, values that change nothing besides null, reason)."""


def ignore_leftovers(reader: ConfigReader) -> None:
    """Register the keys of this file with `reader`. Keys that a model reads still count as read."""
    for reason, keys in IGNORED.items():
        reader.ignore(*keys, reason=reason)
    for key, values, reason in NEUTRAL:
        reader.neutral(key, *values, reason=reason)
