"""The shipped folders: sizes, names, shapes and dtypes, and that `transformers` reads and agrees with them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from outrider_recipe import checkpoints, measure, sampling, vocabulary
from outrider_recipe.arithmetic.problems import HELD_OUT_FAMILIES, final_answer

ZOO = Path(__file__).parents[2]
MIB = 2**20


def _tensors(folder: Path) -> dict[str, tuple[list[int], str]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: (file.get_slice(name).get_shape(), file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(("name", "most"), [("tiny", 16), ("tiny-draft", 3)])
def test_whole_models_have_the_names_and_shapes_of_a_tied_qwen3(name: str, most: int) -> None:
    config = json.loads((ZOO / name / "config.json").read_text())
    assert (ZOO / name / "model.safetensors").stat().st_size <= most * MIB
    assert config["architectures"] == ["Qwen3ForCausalLM"] and config["tie_word_embeddings"] is True
    hidden, heads = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    expected = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        expected |= {
            f"{layer}input_layernorm.weight": [hidden],
            f"{layer}post_attention_layernorm.weight": [hidden],
            f"{layer}self_attn.q_proj.weight": [heads, hidden],
            f"{layer}self_attn.k_proj.weight": [kv, hidden],
            f"{layer}self_attn.v_proj.weight": [kv, hidden],
            f"{layer}self_attn.o_proj.weight": [hidden, heads],
            f"{layer}self_attn.q_norm.weight": [config["head_dim"]],
            f"{layer}self_attn.k_norm.weight": [config["head_dim"]],
            f"{layer}mlp.gate_proj.weight": [config["intermediate_size"], hidden],
            f"{layer}mlp.up_proj.weight": [config["intermediate_size"], hidden],
            f"{layer}mlp.down_proj.weight": [hidden, config["intermediate_size"]],
        }
    assert _tensors(ZOO / name) == {key: (shape, "BF16") for key, shape in expected.items()}
    assert all(size % 16 == 0 for shape in expected.values() for size in shape)


def test_head_has_the_original_format() -> None:
    config = json.loads((ZOO / "tiny-eagle3" / "config.json").read_text())
    target = json.loads((ZOO / "tiny" / "config.json").read_text())
    assert (ZOO / "tiny-eagle3" / "model.safetensors").stat().st_size <= 5 * MIB
    assert config["architectures"] == ["LlamaForCausalLMEagle3"] and "rope_theta" in config
    assert config["hidden_size"] == target["hidden_size"] and config["vocab_size"] == target["vocab_size"]
    hidden, vocab, drafted = config["hidden_size"], config["vocab_size"], config["draft_vocab_size"]
    heads, kv = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    inner = config["intermediate_size"]
    floats = {
        "fc.weight": [hidden, 3 * hidden],
        "midlayer.hidden_norm.weight": [hidden],
        "midlayer.input_layernorm.weight": [hidden],
        "midlayer.post_attention_layernorm.weight": [hidden],
        "midlayer.self_attn.q_proj.weight": [heads, 2 * hidden],
        "midlayer.self_attn.k_proj.weight": [kv, 2 * hidden],
        "midlayer.self_attn.v_proj.weight": [kv, 2 * hidden],
        "midlayer.self_attn.o_proj.weight": [hidden, heads],
        "midlayer.mlp.gate_proj.weight": [inner, hidden],
        "midlayer.mlp.up_proj.weight": [inner, hidden],
        "midlayer.mlp.down_proj.weight": [hidden, inner],
        "norm.weight": [hidden],
        "lm_head.weight": [drafted, hidden],
    }
    expected = {name: (shape, "BF16") for name, shape in floats.items()}
    expected |= {"d2t": ([drafted], "I64"), "t2d": ([vocab], "BOOL")}
    assert _tensors(ZOO / "tiny-eagle3") == expected and drafted < vocab
    head = checkpoints.load_head(ZOO / "tiny-eagle3", torch.device("cpu"))
    assert torch.equal(head.t2d.nonzero()[:, 0], head.draft_ids)
    assert bool((head.d2t > 0).any())  # offsets that are not all zero: the table is exercised


def test_transformers_agrees_with_the_training_network() -> None:
    ours = checkpoints.load_target(ZOO / "tiny", torch.device("cpu"))
    theirs = AutoModelForCausalLM.from_pretrained(ZOO / "tiny", dtype=torch.float32)
    ids = torch.tensor([vocabulary.load(ZOO / "tiny").encode("def area(w, h):\n    return w * 12\n").ids])
    with torch.no_grad():
        hidden, taps = ours(ids)
        result = theirs(ids, output_hidden_states=True)
    torch.testing.assert_close(ours.logits(hidden), result.logits, atol=2e-4, rtol=1e-4)
    wanted = torch.cat([result.hidden_states[count] for count in ours.shape.taps], dim=-1)
    torch.testing.assert_close(taps, wanted, atol=2e-4, rtol=1e-4)

    half = ids.shape[1] // 2
    cache = ours.empty_cache(1, capacity=64, like=torch.zeros(()))
    with torch.no_grad():
        pieces = [ours.prefill(ids[:, :half], cache)]
        for index in range(half, ids.shape[1]):
            pieces.append(ours.step(ids[:, index], cache, lengths=torch.tensor([index]))[:, None])
    torch.testing.assert_close(torch.cat(pieces, dim=1), hidden, atol=2e-4, rtol=1e-4)


def test_the_hybrid_has_the_names_and_shapes_of_a_qwen3_5_with_mtp() -> None:
    whole = json.loads((ZOO / "tiny-hybrid" / "config.json").read_text())
    config = whole["text_config"]
    assert whole["architectures"] == ["Qwen3_5ForConditionalGeneration"] and whole["tie_word_embeddings"] is True
    assert config["layer_types"] == (["linear_attention"] * 3 + ["full_attention"]) * 2
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    heads = config["linear_num_value_heads"]
    values = heads * config["linear_value_head_dim"]
    mixed = 2 * config["linear_num_key_heads"] * config["linear_key_head_dim"] + values
    block = {
        "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden],
        "mlp.gate_proj.weight": [inner, hidden],
        "mlp.up_proj.weight": [inner, hidden],
        "mlp.down_proj.weight": [hidden, inner],
    }
    full = block | {
        "self_attn.q_proj.weight": [2 * queries, hidden],
        "self_attn.k_proj.weight": [kv, hidden],
        "self_attn.v_proj.weight": [kv, hidden],
        "self_attn.o_proj.weight": [hidden, queries],
        "self_attn.q_norm.weight": [head],
        "self_attn.k_norm.weight": [head],
    }
    linear = block | {
        "linear_attn.in_proj_qkv.weight": [mixed, hidden],
        "linear_attn.in_proj_z.weight": [values, hidden],
        "linear_attn.in_proj_a.weight": [heads, hidden],
        "linear_attn.in_proj_b.weight": [heads, hidden],
        "linear_attn.conv1d.weight": [mixed, 1, config["linear_conv_kernel_dim"]],
        "linear_attn.A_log": [heads],
        "linear_attn.dt_bias": [heads],
        "linear_attn.norm.weight": [config["linear_value_head_dim"]],
        "linear_attn.out_proj.weight": [hidden, values],
    }
    expected = {
        "model.language_model.embed_tokens.weight": [config["vocab_size"], hidden],
        "model.language_model.norm.weight": [hidden],
        "mtp.fc.weight": [hidden, 2 * hidden],
        "mtp.pre_fc_norm_embedding.weight": [hidden],
        "mtp.pre_fc_norm_hidden.weight": [hidden],
        "mtp.norm.weight": [hidden],
        **{f"mtp.layers.0.{name}": shape for name, shape in full.items()},
    }
    for index, kind in enumerate(config["layer_types"]):
        layer = full if kind == "full_attention" else linear
        expected |= {f"model.language_model.layers.{index}.{name}": shape for name, shape in layer.items()}
    assert _tensors(ZOO / "tiny-hybrid") == {key: (shape, "BF16") for key, shape in expected.items()}
    assert sum(path.stat().st_size for path in (ZOO / "tiny-hybrid").iterdir()) <= 12 * MIB
    for name in vocabulary.FILES:
        assert (ZOO / "tiny-hybrid" / name).read_bytes() == (ZOO / "tiny" / name).read_bytes()


@pytest.mark.slow
def test_transformers_gives_the_hybrids_answers() -> None:
    """Greedy tokens equal our network's, and answers are right, on a family that the figures have wholly right."""
    figures = json.loads((ZOO / "figures.json").read_text())["hybrid"]["target"]["arithmetic_chat"]
    assert figures["by_family"]["heldout_soup"] == "25/25"
    ours = checkpoints.load_target(ZOO / "tiny-hybrid", torch.device("cpu"))
    theirs = AutoModelForCausalLM.from_pretrained(ZOO / "tiny-hybrid", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(ZOO / "tiny-hybrid")
    problems = measure.held_out_problems(HELD_OUT_FAMILIES, per_family=25)
    chosen = [problem for problem in problems if problem.family == "heldout_soup"][:3]
    prompts = [tokenizer(vocabulary.chat_prompt(problem.question)).input_ids for problem in chosen]
    ends = json.loads((ZOO / "tiny-hybrid" / "generation_config.json").read_text())["eos_token_id"]
    outputs = sampling.continue_prompts(ours, prompts, num_tokens=100, temperature=0.0, seed=1, stop_ids=ends)
    for problem, prompt, output in zip(chosen, prompts, outputs, strict=True):
        given = theirs.generate(torch.tensor([prompt]), max_new_tokens=100, do_sample=False)[0, len(prompt) :].tolist()
        assert given == output and final_answer(tokenizer.decode(given)) == problem.value


def test_tokenizer_round_trips_and_renders_chats() -> None:
    theirs, ours = AutoTokenizer.from_pretrained(ZOO / "tiny"), vocabulary.load(ZOO / "tiny")
    config = json.loads((ZOO / "tiny" / "config.json").read_text())
    assert len(theirs) == ours.get_vocab_size() == config["vocab_size"]
    every_byte = "".join(map(chr, range(0x180))) + "日本語 \U0001f600\r\n\t\n  end"
    for text in (every_byte, "  x = {1: 'a'}  \n\n\ty", "12345 + 678 = 13023"):
        assert theirs.decode(theirs(text).input_ids) == text
        assert ours.decode(ours.encode(text).ids) == text
    digits = [ours.decode([token]) for token in ours.encode("90210").ids]
    assert digits == list("90210")
    message = [{"role": "user", "content": "How many?"}]
    rendered = theirs.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert rendered == vocabulary.chat_prompt("How many?")
    ends = json.loads((ZOO / "tiny" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == list(vocabulary.stop_ids(ours)) and theirs.eos_token_id == ends[0]


def test_prompts_are_in_the_form_of_mt_bench() -> None:
    prompts = [json.loads(line) for line in (ZOO / "prompts.jsonl").read_text().splitlines()]
    assert [prompt["question_id"] for prompt in prompts] == list(range(1, 41))
    assert [prompt["category"] for prompt in prompts] == ["code"] * 20 + ["arithmetic"] * 20
    assert all(len(prompt["turns"]) == 1 for prompt in prompts)
    assert all(isinstance(prompt["answer"], int) for prompt in prompts[20:])


def test_zoo_stays_within_its_size() -> None:
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) <= 36 * MIB
