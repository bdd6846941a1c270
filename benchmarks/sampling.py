"""Sampling over the vocabulary of Llama-3.1: microseconds against one reading of the logits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.timing import READ_BANDWIDTH, Table, microseconds, save
from outrider.kernels import load_kernels
from outrider.kernels.triton.sampling.choose import argmax

KERNELS = load_kernels(("triton",))

VOCAB_SIZE = 128256
DRAFT_VOCAB_SIZE = 32000
L2_BYTES = 60 << 20
ROWS = (1, 4, 32, 64, 256)
NUM_ALLOWED = 300

NOTES = f"""Vocabulary {VOCAB_SIZE}, fp32. "Reading": the time of the logits' bytes at {READ_BANDWIDTH / 1e12} TB/s.
Model: normal logits of deviation 2.2 and thirty above them (8 + 3 × exponential) at temperature 0.8, as a trained model
has them: few tokens hold the mass. Peak: normal logits of deviation 2.5, some nine thousand tokens are kept; flat: of
deviation 0.5, as random weights give them, most tokens are kept. Masked: those of model, of which a grammar allows 300
tokens. Logits rotate through more than the L2 holds."""


def _columns(num_rows: int, **values: float) -> dict[str, Tensor]:
    defaults = {"temperature": 0.8, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "completion_indices": 0} | values
    columns = {
        name: torch.full(
            (num_rows,),
            value,
            device="cuda",
            dtype=torch.int64 if name in ("top_k", "completion_indices") else torch.float32,
        )
        for name, value in defaults.items()
    }
    return columns | {"seeds": torch.randint(0, 2**62, (num_rows,), device="cuda")}


def _rotated(num_rows: int, width: int, deviation: float, num_heavy: int = 0) -> list[Tensor]:
    count = max(2, 3 * L2_BYTES // (num_rows * width * 4))
    all_logits = [torch.randn(num_rows, width, device="cuda") * deviation for _ in range(count)]
    for logits in all_logits:
        ids = torch.randint(0, width, (num_rows, num_heavy), device="cuda")
        logits.scatter_(1, ids, 8 - 3 * torch.rand(num_rows, num_heavy, device="cuda").log())
    return all_logits


def _each(run: Callable[[Tensor], object], all_logits: Sequence[Tensor]) -> float:
    def calls() -> None:
        for logits in all_logits:
            run(logits)

    return microseconds(calls, calls=len(all_logits))


def choosing() -> Table:
    table = Table("Choosing a token", ["rows", "logits", "what", "µs", "reading µs", "µs / reading"])
    cases: dict[str, dict[str, float]] = {
        "temperature": {},
        "top_p 0.95": {"top_p": 0.95},
        "top_k 50": {"top_k": 50},
        "top_k 50, top_p 0.95": {"top_k": 50, "top_p": 0.95},
        "min_p 0.05": {"min_p": 0.05},
        "top_k 50, temperature 0.1": {"top_k": 50, "temperature": 0.1},
        "top_p 0.95, temperature 0.1": {"top_p": 0.95, "temperature": 0.1},
        "greedy, among random rows": {"temperature": 0.0},
    }
    for num_rows in ROWS:
        rows = torch.arange(num_rows, device="cuda")
        reading = num_rows * VOCAB_SIZE * 4 / READ_BANDWIDTH * 1e6
        for name, deviation, num_heavy in (("model", 2.2, 30), ("peak", 2.5, 0), ("flat", 0.5, 0), ("masked", 2.2, 30)):
            all_logits = _rotated(num_rows, VOCAB_SIZE, deviation, num_heavy)
            if name == "masked":
                for logits in all_logits:
                    logits[torch.rand_like(logits) * VOCAB_SIZE > NUM_ALLOWED] = -torch.inf
            if name == "peak":
                time = _each(argmax, all_logits)
                table.add(num_rows, name, "greedy", time, reading, f"{time / reading:.2f}")
            for case, values in cases.items():
                columns = _columns(num_rows, **values)

                def run(logits: Tensor, columns: dict[str, Tensor] = columns, rows: Tensor = rows) -> Tensor:
                    return KERNELS.choose(
                        logits, rows=rows, positions=rows, **columns, random_index=rows, truncation_index=rows
                    )

                time = _each(run, all_logits)
                table.add(num_rows, name, case, time, reading, f"{time / reading:.2f}")
    return table


def the_rest() -> Table:
    table = Table("Around it", ["rows", "what", "µs", "reading µs", "µs / reading"])
    for num_rows in ROWS:
        rows = torch.arange(num_rows, device="cuda")
        reading = num_rows * VOCAB_SIZE * 4 / READ_BANDWIDTH * 1e6
        all_logits = _rotated(num_rows, VOCAB_SIZE, 2.5)
        for num_top in (0, 5, 20):
            time = _each(lambda logits, n=num_top, ids=rows: KERNELS.logprobs(logits, ids, num_top=n), all_logits)
            table.add(num_rows, f"logprobs, top {num_top}", time, reading, f"{time / reading:.2f}")
        time = _each(KERNELS.hash_rows, all_logits)
        table.add(num_rows, "hash", time, reading, f"{time / reading:.2f}")
        for what, repetition in (("process, no row has need", 1.0), ("process, penalties", 1.1)):
            tables = _tables(num_rows, repetition)
            time = _each(lambda logits, tables=tables: KERNELS.process(logits, **tables), all_logits)
            table.add(num_rows, what, time, reading, f"{time / reading:.2f}")
        drafts = _rotated(num_rows, DRAFT_VOCAB_SIZE, 2.5)
        ids = torch.randperm(VOCAB_SIZE, device="cuda")[:DRAFT_VOCAB_SIZE]
        for what, temperature in (("draft, greedy", 0.0), ("draft, temperature", 0.8)):
            columns = _columns(num_rows, temperature=temperature)
            own = {name: columns[name] for name in ("temperature", "seeds", "completion_indices")}
            reading = num_rows * DRAFT_VOCAB_SIZE * 4 / READ_BANDWIDTH * 1e6
            time = _each(
                lambda logits, own=own, ids=ids, rows=rows: KERNELS.draft_choose(
                    logits, ids, rows=rows, positions=rows, **own, has_random_rows=True
                ),
                drafts,
            )
            table.add(num_rows, what, time, reading, f"{time / reading:.2f}")
        sampled = torch.zeros(num_rows * 4, dtype=torch.int64, device="cuda")
        guesses = torch.zeros(num_rows, 3, dtype=torch.int64, device="cuda")
        count = torch.full((num_rows,), 4, device="cuda")
        time = microseconds(
            lambda sampled=sampled, rows=rows, count=count, guesses=guesses: [
                KERNELS.verify(
                    sampled, sample_starts=rows * 4, num_samples=count, drafts=guesses, num_tokens_left=count
                )
                for _ in range(20)
            ],
            calls=20,
        )
        table.add(num_rows, "verify 3 drafts (and a product)", time, "", "")
    return table


def _tables(num_rows: int, repetition: float) -> dict[str, Tensor | None]:
    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(num_rows, *shape, dtype=dtype, device="cuda")

    rows = torch.arange(num_rows, device="cuda")
    return {
        "rows": rows,
        "offsets": rows % 4,
        "lengths": rows + 100,
        "drafts": zeros(3),
        "num_logit_bias": zeros(),
        "logit_bias_ids": zeros(300),
        "logit_bias": zeros(300, dtype=torch.float32),
        "min_length": zeros(),
        "num_stop_token_ids": zeros(),
        "stop_token_ids": zeros(32),
        "output_counts": torch.randint(0, 2, (num_rows, VOCAB_SIZE), dtype=torch.int32, device="cuda"),
        "prompt_mask": zeros(VOCAB_SIZE, dtype=torch.bool),
        "repetition": torch.full((num_rows,), repetition, device="cuda"),
        "presence": zeros(dtype=torch.float32),
        "frequency": zeros(dtype=torch.float32),
        "allowed": zeros((VOCAB_SIZE + 31) // 32, dtype=torch.int32) - 1,
        "num_bad_words": zeros(),
        "bad_words": zeros(64, 16, dtype=torch.int32),
        "token_ids": zeros(4096, dtype=torch.int32),
        "num_prompt_tokens": zeros(),
    } | dict.fromkeys(("bias_index", "min_tokens_index", "penalty_index", "allowed_index", "bad_words_index"), rows)


def main() -> None:
    torch.manual_seed(0)
    save("sampling", "Sampling", [choosing(), the_rest()], NOTES)
