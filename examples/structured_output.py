"""Forces the output into a JSON schema, a regular expression and a list of choices, with speculation on.

Run it from the repository: python examples/structured_output.py
"""

import json
from pathlib import Path

from outrider import LLM, SamplingParams, StructuredOutputsParams

ZOO = Path(__file__).parents[1] / "zoo"
QUESTION = "Anna has 14 apples and buys 9 more. How many apples does she have?"
SCHEMA = {
    "type": "object",
    "properties": {
        "fruit": {"enum": ["apples", "pears"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "is_even": {"type": "boolean"},
    },
    "required": ["fruit", "count", "is_even"],
    "additionalProperties": False,
}
CONSTRAINTS = {
    "JSON schema": StructuredOutputsParams(json=SCHEMA | {"x-guidance": {"whitespace_flexible": False}}),
    "expression": StructuredOutputsParams(regex=r"The answer is [0-9]{1,2}\."),
    "choice": StructuredOutputsParams(choice=["more than twenty", "at most twenty"]),
}


def main() -> None:
    drafter = {"method": "ngram", "num_speculative_tokens": 3}
    llm = LLM(str(ZOO / "tiny"), speculative_config=drafter)
    params = [
        SamplingParams(temperature=0.0, max_tokens=60, structured_outputs=constraint)
        for constraint in CONSTRAINTS.values()
    ]
    conversation = [{"role": "user", "content": QUESTION}]
    outputs = llm.chat([conversation] * len(params), params)
    for name, output in zip(CONSTRAINTS, outputs, strict=True):
        print(f"{name:12} {output.outputs[0].text}")
    print("parsed:     ", json.loads(outputs[0].outputs[0].text))


if __name__ == "__main__":
    main()
