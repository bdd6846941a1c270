"""Completes a few prompts with a drafter, greedily and sampled, and shows what speculation saved.

Run it from the repository: python examples/generate.py
"""

from pathlib import Path

from outrider import LLM, SamplingParams

ZOO = Path(__file__).parents[1] / "zoo"
PROMPTS = ["def load_json(path):", "import os\n\n\ndef read_lines(path):"]


def main() -> None:
    drafter = {"method": "eagle3", "model": str(ZOO / "tiny-eagle3"), "num_speculative_tokens": 3}
    llm = LLM(str(ZOO / "tiny"), speculative_config=drafter)

    greedy = SamplingParams(temperature=0.0, max_tokens=48)
    # the same seed gives the same tokens, with any drafter, in any batch, today and tomorrow
    sampled = SamplingParams(temperature=0.8, top_p=0.95, seed=7, max_tokens=48)

    # one SamplingParams serves all prompts, or there is one for each prompt
    outputs = llm.generate([*PROMPTS, PROMPTS[0]], [greedy, greedy, sampled])
    for output in outputs:
        completion = output.outputs[0]
        print(f"{output.prompt}{completion.text}")
        stats = output.speculation
        print(
            f"--- {len(completion.token_ids)} tokens in {stats.num_steps} steps, acceptance length "
            f"{stats.mean_acceptance_length:.2f}, finished by {completion.finish_reason}\n"
        )


if __name__ == "__main__":
    main()
