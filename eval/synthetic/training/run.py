"""Train the tiny model, stage by stage; stop and start again at any moment.

    python -m eval.synthetic.training.run outputs/tiny                   # every stage that is not done
    python -m eval.synthetic.training.run outputs/tiny --stage tower     # one stage
    python -m eval.synthetic.training.run outputs/tiny --minutes 9       # a chunk; the next call goes on

Every stage has a folder with its state, its log (one line of JSON every 50 steps) and, once done, what it reached.
A stage that misses a gate ends the run with exit code 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import DataLoader

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.progress import progress
from eval.instruments.record import write_whole
from eval.synthetic.training.features import kept_features
from eval.synthetic.training.frames import Frames
from eval.synthetic.training.language import RunningShares, SideHeads, language_outcome
from eval.synthetic.training.model import grow, match_anew, new_model
from eval.synthetic.training.optimizers import Optimizers, trapezoid
from eval.synthetic.training.stages import STAGES, Stage
from eval.synthetic.training.streams import VideoQuestions
from eval.synthetic.training.validation import validate_language, validate_tower
from eval.synthetic.training.vision import vision_loss
from llava.errors import InputError

_LOG_EVERY = 50
_SAVE_SECONDS = 60.0
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Save so that a stop at any moment leaves the old state or the new one."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


class StageRun:
    """One stage on its way.

    Args:
        stage: what to do.
        root: folder of all stages.
        seed: of the model's start.
        device: to train on.
    """

    def __init__(self, stage: Stage, root: Path, seed: int, device: torch.device) -> None:
        self.stage, self.root, self.folder, self.device = stage, root, root / stage.name, device
        self.model, _, self.prompts = new_model(root / "tokenizer", seed, stage.layers)
        self.heads = SideHeads(seed)
        for origin in (stage.language, stage.tower):
            if origin is not None:
                self._take(origin)
        match_anew(self.model, stage.matched, seed)
        self.model.to(device)
        self.heads.to(device)
        decoder = self.model.get_model()
        modules = (
            [self.model.get_vision_tower().vision_tower, decoder.mm_projector]
            if stage.kind == "tower"
            else [decoder.layers, decoder.embed_tokens, decoder.norm, self.heads, decoder.image_newline]
        )
        self.optimizers = Optimizers(
            modules, stage.rate, stage.vectors, trapezoid(stage.steps, stage.warmup, stage.decay)
        )
        self.tally, self.done = RunningShares(), 0
        self.running: dict[str, float] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.state_path.exists():
            self._continue()

    @property
    def state_path(self) -> Path:
        """Where the state lies."""
        return self.folder / "state.pt"

    def _take(self, origin: str) -> None:
        """Weights of an earlier stage: of the part it trained and all before it."""
        path = self.root / origin / "state.pt"
        if not path.exists() or not (path.parent / "done.json").exists():
            raise InputError(f"stage {self.stage.name} needs stage {origin}, which is not done: run it first")
        saved = torch.load(path, map_location="cpu")
        visual = {k: v for k, v in saved["model"].items() if "vision_tower" in k or "mm_projector" in k}
        chosen = visual if origin == self.stage.tower else saved["model"]
        if origin == self.stage.language and self.model.state_dict().keys() - chosen.keys():  # layers it had not yet
            chosen = grow(self.model, chosen)
        self.model.load_state_dict(chosen, strict=False)
        if origin == self.stage.language:
            self.heads.load_state_dict(saved["heads"])

    def _continue(self) -> None:
        saved = torch.load(self.state_path, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        self.optimizers.load(saved["optimizers"])
        self.tally.right, self.tally.asked = saved["tally"]
        self.running, self.done = saved["running"], saved["step"]

    def save(self) -> None:
        """Keep everything the next call needs."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": self.optimizers.state(),
            "tally": (self.tally.right, self.tally.asked),
            "running": self.running,
            "step": self.done,
        }
        write_state(self.state_path, state)

    def step(self, batch: Any) -> None:
        """One optimizer step."""
        batch = batch.to(self.device)
        if self.stage.kind == "tower":
            loss, parts = vision_loss(self.model, batch)
        else:
            features = kept_features(self.model, batch)
            before = self.prompts.before
            outcome = language_outcome(
                self.model, self.heads, before, batch, features, self.stage.sides, self.stage.early
            )
            loss, parts = outcome.loss, outcome.parts
            self.tally.add(batch, outcome.right)
        self.optimizers.step(loss)
        self.done += 1
        for name, value in parts.items():
            self.running[name] = 0.98 * self.running.get(name, value) + 0.02 * value

    def batches(self, workers: int) -> DataLoader:
        """The stage's data from the present step on."""
        stage = self.stage
        data = (
            Frames(stage.frames, stage.crowded, stage.seed, self.done)
            if stage.kind == "tower"
            else VideoQuestions(stage.stream, str(self.root / "tokenizer"), stage.seed, self.done)
        )
        return DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)

    def log(self, seconds: float) -> None:
        """One line in the stage's log and on the terminal."""
        line: dict[str, Any] = {"step": self.done, "seconds": round(seconds, 1)}
        line |= {name: round(value, 4) for name, value in self.running.items()}
        if self.stage.kind == "language":
            line["right"] = self.tally.shares()
        with open(self.folder / "log.jsonl", "a") as file:
            print(json.dumps(line), file=file)
        console.print(f"{self.stage.name} {json.dumps(line)}")

    def train(self, workers: int, deadline: float) -> bool:
        """Train until the stage's last step or the deadline; returns whether the last step was reached."""
        begun = saved = time.monotonic()
        if self.done < self.stage.steps:
            bar = progress(self.batches(workers), self.stage.name, self.stage.steps, self.done)
            for batch in bar:
                self.step(batch)
                now = time.monotonic()
                if self.done % _LOG_EVERY == 0:
                    self.log(now - begun)
                if self.done == self.stage.steps or now > deadline:
                    break
                if now - saved > _SAVE_SECONDS:
                    self.save()
                    saved = now
        self.save()
        return self.done >= self.stage.steps

    def finish(self) -> dict[str, float]:
        """Validate, and keep what was reached.

        Raises:
            InputError: if a gate was missed.
        """
        self.model.eval()
        if self.stage.kind == "tower":
            reached = validate_tower(self.model)
        else:
            reached = validate_language(self.model, self.prompts, str(self.root / "tokenizer"), self.stage.stream)
        missed = [
            f"{name} {reached[name]:.3f} < {least}" for name, least in self.stage.gates.items() if reached[name] < least
        ]
        found = {"stage": asdict(self.stage), "reached": reached, "missed": missed, **provenance()}
        result = stamped("training", found)
        write_whole(self.folder / ("missed.json" if missed else "done.json"), json.dumps(result, indent=1))
        if missed:
            raise InputError(
                f"stage {self.stage.name} misses its gates after {self.done} steps: {', '.join(missed)}; its log is "
                f"{self.folder}/log.jsonl; give it more steps in stages.py"
            )
        return reached


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the stages keep their states and logs")
    parser.add_argument("--stage", choices=[stage.name for stage in STAGES], help="only this one")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after this long; the next call goes on"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make data")
    parser.add_argument("--threads", type=int, default=1, help="of the trainer on CPU")
    parser.add_argument("--seed", type=int, default=0, help="of the model's start")
    parser.add_argument("--done", action="store_true", help="train nothing; exit code 0 if every stage is done, else 3")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(arguments)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = read_arguments(arguments)
    if options.done:
        sys.exit(0 if all((options.folder / stage.name / "done.json").exists() for stage in STAGES) else 3)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    deadline = time.monotonic() + 60 * options.minutes
    result: dict[str, Any] = {}
    for stage in STAGES:
        if (options.stage or stage.name) != stage.name:
            continue
        finished = options.folder / stage.name / "done.json"
        if finished.exists():
            console.print(f"{stage.name} is done")
            result[stage.name] = json.loads(finished.read_text())["reached"]
            continue
        run = StageRun(stage, options.folder, options.seed, device)
        if not run.train(options.workers, deadline):
            console.print(f"{stage.name} stands at step {run.done} of {stage.steps}: run the same command again")
            result[stage.name] = {"step": run.done, "of": stage.steps}
            break
        result[stage.name] = run.finish()
        console.print(f"{stage.name} reached {json.dumps(result[stage.name])}")
    print(json.dumps({"stages": result, **provenance()}))


if __name__ == "__main__":
    main()
