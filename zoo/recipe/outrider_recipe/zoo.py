"""`python -m outrider_recipe.zoo STAGES`: makes the shipped models, stage by stage. Holds no training code.

Stages: collect, tokenizer, encode, target, measure-target, policy, then eagle3, measure-eagle3, draft for `tiny` or
mtp, measure-mtp for `tiny-hybrid` (`--model`); `all` for all. A stage whose result is in the work or zoo folder is
skipped, so a broken run goes on where it stopped.
"""

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from outrider_recipe import checkpoints, measure, policy, prepare, vocabulary
from outrider_recipe.distill import train_head
from outrider_recipe.draft import draft_shape, train_draft
from outrider_recipe.eagle3 import Eagle3Head, HeadShape
from outrider_recipe.fit import Budget
from outrider_recipe.head import Head
from outrider_recipe.hybrid import Hybrid, HybridShape
from outrider_recipe.mtp import MtpModule
from outrider_recipe.network import Shape, Target
from outrider_recipe.prepare import Recipe
from outrider_recipe.pretrain import mean_loss, round_to_bf16, train_target
from outrider_recipe.tokens import Share, TokenRow

BOTH = ("collect", "tokenizer", "encode", "target", "measure-target", "policy")
STAGES = {
    "tiny": (*BOTH, "eagle3", "measure-eagle3", "draft"),
    "tiny-hybrid": (*BOTH, "mtp", "measure-mtp"),
}
ALL_STAGES = tuple(dict.fromkeys(stage for stages in STAGES.values() for stage in stages))
RECIPE, SHAPE, HYBRID_SHAPE, HEAD_SHAPE = Recipe(), Shape(), HybridShape(), HeadShape()
EAGLE3_STEPS, MTP_STEPS = 4, 3  # draft steps unrolled in training
STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m outrider_recipe.zoo", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=(*ALL_STAGES, "all"))
    parser.add_argument("--model", choices=tuple(STAGES), default="tiny")
    parser.add_argument("--work", type=Path, required=True, help="data and figures")
    parser.add_argument("--zoo", type=Path, required=True, help="the model folders")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--package-limit", type=int, default=RECIPE.package_limit)
    parser.add_argument("--num-packages", type=int, default=RECIPE.num_packages)
    parser.add_argument("--num-problems", type=int, default=RECIPE.num_problems)
    parser.add_argument("--target-steps", type=int, default=30_000)
    parser.add_argument("--target-seconds", type=float, default=405)
    parser.add_argument("--target-lr", type=float, default=4e-3)
    parser.add_argument("--rows", type=int, nargs=3, default=(16, 2, 14), help="windows of code, chat, arithmetic")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a training window")
    parser.add_argument("--layers", type=int, help="of the target, where not those of the shipped one")
    parser.add_argument("--policy-seconds", type=float, default=50)
    parser.add_argument("--policy-rows", type=int, default=4096)
    parser.add_argument("--draft-vocab-size", type=int, default=HEAD_SHAPE.draft_vocab_size)
    parser.add_argument("--head-steps", type=int, default=30_000)
    parser.add_argument("--head-seconds", type=float, default=240)
    parser.add_argument("--head-lr", type=float, default=3e-3)
    parser.add_argument(
        "--head-rows",
        type=int,
        nargs=5,
        default=(7, 2, 3, 14, 6),
        help="windows of code, chat, arithmetic, sampled code, sampled arithmetic",
    )
    parser.add_argument("--head-length", type=int, default=1024)
    parser.add_argument("--draft-steps", type=int, default=30_000)
    parser.add_argument("--draft-seconds", type=float, default=600)
    parser.add_argument("--draft-lr", type=float, default=4e-3)
    parser.add_argument("--draft-layers", type=int, default=2)
    parser.add_argument("--draft-intermediate-size", type=int, default=224)
    parser.add_argument("--draft-length", type=int, default=384, help="tokens of a window")
    parser.add_argument("--draft-batches", type=int, default=90, help="draws of windows that the target judges")
    parser.add_argument("--draft-rows-at-once", type=int, default=4, help="windows of a step")
    parser.add_argument(
        "--draft-rows",
        type=int,
        nargs=5,
        default=(2, 1, 1, 3, 1),
        help="windows of code, chat, arithmetic, sampled code, sampled arithmetic",
    )
    parser.add_argument("--per-family", type=int, default=25, help="held-out problems of each family")
    parser.add_argument(
        "--target-cooldown", type=float, default=0.45, help="share of the steps with a falling learning rate"
    )
    parser.add_argument("--start-from", type=Path, help="a target folder from which to continue training")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    return parser.parse_args()


class Run:
    """One method per stage; each finds what it needs on disk."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work
        self.folder: Path = options.zoo / options.model
        self.head: Path = options.zoo / "tiny-eagle3"
        self.draft_model: Path = options.zoo / "tiny-draft"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.recipe = Recipe(
            package_limit=options.package_limit,
            num_packages=options.num_packages,
            num_problems=options.num_problems,
            seed=options.seed,
        )
        shape = HYBRID_SHAPE if options.model == "tiny-hybrid" else SHAPE
        self.shape = replace(shape, num_layers=options.layers or shape.num_layers, vocab_size=self.recipe.vocab_size)

    def collect(self) -> None:
        prepare.collect(self.work, recipe=self.recipe, workers=self.options.workers, say=say)

    def tokenizer(self) -> None:
        """Train the tokenizer of `tiny`; the hybrid gets a copy of its files."""
        if self.options.model == "tiny-hybrid":
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in vocabulary.FILES:
                shutil.copyfile(self.options.zoo / "tiny" / name, self.folder / name)
            return
        prepare.train_tokenizer(
            self.work,
            self.folder,
            recipe=self.recipe,
            max_length=self.shape.max_length,
        )

    def encode(self) -> None:
        tokenizer = vocabulary.load(self.folder)
        prepare.encode(self.work, tokenizer, say=say)

    def target(self) -> None:
        if (self.folder / "model.safetensors").exists():
            return
        options, tokenizer = self.options, vocabulary.load(self.folder)
        code, chat, arithmetic = (self._row(name) for name in ("code", "chat", "arithmetic"))
        shares = [
            Share(code, options.rows[0], 0.3),
            Share(chat, options.rows[1], 1.0),
            Share(arithmetic, options.rows[2], 1.0),
        ]
        budget = Budget(
            steps=options.target_steps,
            seconds=options.target_seconds,
            lr=options.target_lr,
            cooldown=options.target_cooldown,
        )
        target = self._untrained()
        curve = train_target(
            target,
            shares,
            length=options.length,
            budget=budget,
            seed=options.seed,
            compiled=not options.eager,
            say=say,
        )
        windows = torch.tensor(prepare.held_out_windows(self.work, tokenizer, length=1025, most=64), device=self.device)
        before = mean_loss(target, windows)
        round_to_bf16(target)
        after = mean_loss(target, windows)
        say(f"held-out code {before:.4f} nats a token, {after:.4f} after rounding to bf16")
        checkpoints.save_target(target, self.folder, end_ids=vocabulary.stop_ids(tokenizer))
        self._record("target-curve", asdict(curve) | {"budget": asdict(budget), "rows": options.rows})

    def _untrained(self) -> Target:
        if self.options.start_from is not None:
            return checkpoints.load_target(self.options.start_from, self.device).requires_grad_(True)
        target = Hybrid(self.shape) if isinstance(self.shape, HybridShape) else Target(self.shape)
        target.initialise(self.options.seed)
        return target.to(self.device)

    def measure_target(self) -> None:
        target = checkpoints.load_target(self.folder, self.device)
        per_family = self.options.per_family
        figures = measure.measure_target(target, vocabulary.load(self.folder), self.work, per_family=per_family)
        self._record("target-figures", figures)
        for name, value in figures.items():
            if not name.endswith("errors"):
                say(f"{name}: {json.dumps(value)[:1200]}")

    def policy(self) -> None:
        policy.sample_policy(
            checkpoints.load_target(self.folder, self.device),
            vocabulary.load(self.folder),
            self.work,
            seconds=self.options.policy_seconds,
            num_rows=self.options.policy_rows,
            seed=self.options.seed,
            say=say,
        )

    def eagle3(self) -> None:
        if (self.head / "model.safetensors").exists():
            return
        options = self.options
        draft_ids, covered = policy.draftable_ids(
            self.work, vocab_size=self.shape.vocab_size, draft_vocab_size=options.draft_vocab_size
        )
        say(f"{options.draft_vocab_size} draftable ids cover {covered:.4f} of the tokens")
        target = checkpoints.load_target(self.folder, self.device)
        shape = HeadShape.beside(
            target.shape, draft_vocab_size=options.draft_vocab_size, intermediate_size=HEAD_SHAPE.intermediate_size
        )
        head = Eagle3Head(shape, draft_ids=draft_ids)
        head.initialise(target.model.embed_tokens.weight.cpu(), options.seed)
        self._train_head(head.to(self.device), target, num_steps=EAGLE3_STEPS, record="eagle3-curve", covered=covered)
        checkpoints.save_head(head, self.head)

    def mtp(self) -> None:
        if checkpoints.has_mtp(self.folder):
            return
        target = checkpoints.load_target(self.folder, self.device)
        assert isinstance(target, Hybrid), f"{self.folder} holds no hybrid model"
        head = MtpModule(target.shape)
        head.initialise(target.model.norm.weight.cpu(), self.options.seed)
        self._train_head(head.to(self.device), target, num_steps=MTP_STEPS, record="mtp-curve")
        ends = vocabulary.stop_ids(vocabulary.load(self.folder))
        checkpoints.save_target(target, self.folder, end_ids=ends, mtp=head)

    def _train_head(
        self, head: Eagle3Head | MtpModule, target: Target, *, num_steps: int, record: str, **extra: float
    ) -> None:
        options = self.options
        names = ("code", "chat", "arithmetic", "policy_code", "policy_arithmetic")
        rows = zip(names, options.head_rows, strict=True)
        shares = [Share(self._row(name), count, 0.3 if name == "code" else 1.0) for name, count in rows]
        budget = Budget(steps=options.head_steps, seconds=options.head_seconds, lr=options.head_lr)
        curve = train_head(
            head,
            list(head.named_parameters()),
            target,
            shares,
            num_steps=num_steps,
            length=options.head_length,
            budget=budget,
            seed=options.seed,
            compiled=not options.eager,
            say=say,
        )
        self._record(record, asdict(curve) | {"budget": asdict(budget), "rows": options.head_rows} | extra)

    def measure_eagle3(self) -> None:
        self._measure_head(checkpoints.load_head(self.head, self.device), name="eagle3", each_num_drafts=(3,))

    def measure_mtp(self) -> None:
        self._measure_head(checkpoints.load_mtp(self.folder, self.device), name="mtp", each_num_drafts=(1, 3))

    def _measure_head(self, head: Head, *, name: str, each_num_drafts: tuple[int, ...]) -> None:
        figures = measure.measure_acceptance(
            checkpoints.load_target(self.folder, self.device),
            head,
            vocabulary.load(self.folder),
            self.work,
            per_family=self.options.per_family,
            name=name,
            each_num_drafts=each_num_drafts,
        )
        self._record(f"{name}-figures", figures)
        for text, value in figures.items():
            say(f"{text}: {json.dumps(value)}")

    def draft(self) -> None:
        if (self.draft_model / "model.safetensors").exists():
            return
        options, tokenizer = self.options, vocabulary.load(self.folder)
        names = ("code", "chat", "arithmetic", "policy_code", "policy_arithmetic")
        rows = zip(names, options.draft_rows, strict=True)
        shares = [Share(self._row(name), count, 0.3 if name == "code" else 1.0) for name, count in rows]
        target = checkpoints.load_target(self.folder, self.device)
        budget = Budget(steps=options.draft_steps, seconds=options.draft_seconds, lr=options.draft_lr)
        shape = draft_shape(
            target.shape, num_layers=options.draft_layers, intermediate_size=options.draft_intermediate_size
        )
        draft, curve = train_draft(
            shape,
            target,
            shares,
            length=options.draft_length,
            num_batches=options.draft_batches,
            rows_at_once=options.draft_rows_at_once,
            budget=budget,
            seed=options.seed,
            compiled=not options.eager,
            say=say,
        )
        round_to_bf16(draft)
        checkpoints.save_target(draft, self.draft_model, end_ids=vocabulary.stop_ids(tokenizer))
        self._record("draft-curve", asdict(curve) | {"budget": asdict(budget), "rows": options.draft_rows})

    def _row(self, name: str) -> TokenRow:
        return TokenRow.load(self.work / "tokens" / name, self.device)

    def _record(self, name: str, content: dict[str, object]) -> None:
        (self.work / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(options.seed)
    stages = STAGES[options.model] if "all" in options.stages else options.stages
    if foreign := [stage for stage in stages if stage not in STAGES[options.model]]:
        raise SystemExit(
            f"{', '.join(foreign)}: not a stage of {options.model}. Its stages: {', '.join(STAGES[options.model])}"
        )
    run = Run(options)
    for stage in stages:
        say(f"stage {stage}")
        # figures are taken in true fp32; in training tf32 is exact enough beside bf16
        torch.set_float32_matmul_precision("highest" if stage.startswith("measure") else "high")
        getattr(run, stage.replace("-", "_"))()
    say("done")


if __name__ == "__main__":
    main()
