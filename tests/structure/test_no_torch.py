"""Public names, help, errors in a command line and the front of a server import no torch: a person waits for them, or
keeps them in memory, without need of an engine.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "zoo" / "tiny")
HEAVY = ("torch", "transformers", "triton")

RUN = """
import sys
from outrider.cli import main
sys.argv = ["outrider", *sys.argv[1:]]
try:
    main()
except SystemExit as stopped:
    code = stopped.code
print("HEAVY", code, *(name for name in {heavy} if name in sys.modules))
"""

FRONT = """
import sys
from pathlib import Path
from outrider.engine.admission import Admission
from outrider.engine.chat import ChatOptions, encode_chat
from outrider.engine.tokenizer import Tokenizer
from outrider.core.sampling_params import SamplingParams, StructuredOutputsParams
import outrider.server.serve
tokenizer = Tokenizer(Path(sys.argv[1]))
ids = encode_chat(tokenizer, [{"role": "user", "content": "Hello"}], ChatOptions())
admission = Admission(tokenizer=tokenizer, vocab_size=3072, max_model_len=2048, eos_token_ids=(0,), seed=0)
grammar = StructuredOutputsParams(json={"type": "object", "properties": {"a": {"type": "integer"}}})
admission.request({"prompt_token_ids": ids}, SamplingParams(structured_outputs=grammar), request_id="a")
print(len(ids), "torch" in sys.modules)
"""


def output_of(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_classes_are_imported_without_torch() -> None:
    program = "import sys; from outrider import *; print(LLM, [name for name in sys.argv[1:] if name in sys.modules])"
    assert output_of(program, *HEAVY).endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["generate", "--help"], 0),
        (["serve", "--help"], 0),
        (["serve", "--no-such-option"], 2),
        (["generate", "--speculative-config", "{"], 2),
    ],
    ids=str,
)
def test_help_and_errors_need_no_torch(arguments: list[str], code: int) -> None:
    assert output_of(RUN.format(heavy=HEAVY), *arguments).splitlines()[-1].split() == ["HEAVY", str(code)]


def test_the_front_of_a_server_needs_no_torch() -> None:
    """With a template rendered and a grammar checked, which load libraries late."""
    num_tokens, has_torch = output_of(FRONT, MODEL).split()
    assert int(num_tokens) > 1 and has_torch == "False"
