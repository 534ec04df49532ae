"""Random damage for every reader of configurations, command lines, checkpoints, logs, results and records.

    python -m tests.fuzz_readers --count 5000 --seed 0

A mutation passes if the reader accepts it, or refuses it with one short :class:`InputError` within seconds. The last
line is JSON: mutations, refusals by reader, and what failed. The suite runs a slice of it.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms.answer_log import AnswerLog, Entry
from eval.benchmarks.lmms.results import RESULT, SAMPLES, load_result
from eval.benchmarks.lmms.settings import assignments, model_arguments
from eval.paper.grids import load_grid
from holitom.record.file import load_record
from holitom.settings import load_config, parse_config
from holitom.strict_yaml import parse_yaml
from llava.errors import InputError
from llava.model.checkpoint import read_config
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.stored import check_stored
from tests.eval.benchmarks.made_results import share, write_run

TINY = Path("checkpoints/tiny")
_LONGEST_LINE = 1500
_SLOWEST = 10.0  # seconds; a hung reader, on a busy machine too
# Scalars and fragments that readers stumble over.
HAZARDS = (
    "2024-13-45", "2024-01-02", "!!float abc", "!!int x", "!!binary ab", "!!python/name:os.system", "!!set {a}",
    "!!omap", "9" * 400, "9" * 5000, "-" + "9" * 30, "1e999", "1e-999", ".nan", ".inf", "-.inf", "0x", "0o9", "016",
    "1:30", "1_0", "~", "null", "true", "no", "''", '"\\ud800"', '"\\x00"', '"\\UFFFFFFFF"', "\x00", "\x85", "\u2028",
    "\ufeff", "\t", "[" * 50, "]" * 9, "{" * 50, "[" * 5000, "&a [*a]", "*a", "&a", "<<: *a", "<<: {a: 1}", "? ",
    "? [a]: b", "- ", ": ", "|", ">", "%YAML 1.1", "%TAG ! x", "---", "...", "#", "@", "`", "=", "a: b: c", "{}", "[]",
    "0", "-1", "1.5", "é" * 300, "compressor", "method", "holitom", "outer", "retain_ratio: 0.2",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 1.5, -0.0, 10**9, 10**30, 10**400, float("nan"), float("inf"), 1e-320, "", "x", "0",
    "1e-6", [], [1], [[1]], {}, {"a": 1}, "silu", "../x", "/etc/passwd", "\ud800", "a\nb", "x" * 5000, ["Qwen"], 2**63,
    -(2**64),
)  # fmt: skip


@dataclass
class Outcome:
    """What a run found."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def damaged_text(text: str, draw: random.Random) -> str:
    """A text with one to three of: a span lost or doubled, a hazard put in or for a value, a letter, lines shuffled."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randint(0, len(text))
        stop = min(len(text), start + draw.randint(0, 30))
        way = draw.randrange(7)
        if way == 0:
            text = text[:start] + text[stop:]
        elif way == 1:
            text = text[:stop] + text[start:]
        elif way == 2:
            text = text[:start] + draw.choice(HAZARDS) + text[start:]
        elif way == 3:
            text = text[:start] + draw.choice(HAZARDS) + text[stop:]
        elif way == 4:
            text = text[:start] + chr(draw.choice((0, 9, 10, 32, 58, 91, 123, 127, 255, 0x2028, 0xD7FF))) + text[start:]
        elif way == 5 and text.count("\n") > 1:
            lines = text.split("\n")
            draw.shuffle(lines)
            text = "\n".join(lines)
        else:
            lines = text.split("\n")
            at = draw.randrange(len(lines))
            lines[at] = lines[at].partition(":")[0] + ": " + draw.choice(HAZARDS)
            text = "\n".join(lines)
    return text


def damaged_json(value: Any, draw: random.Random) -> Any:
    """A copy of a JSON object with one to three values replaced, lost, wrapped or added at any depth."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(1, 3)):
        groups = [value, *(entry for entry in value.values() if isinstance(entry, dict) and entry)]
        group = draw.choice([each for each in groups if each] or [value])
        key = draw.choice(list(group)) if group else "x"
        way = draw.randrange(5)
        if way == 0:
            group.pop(key, None)
        elif way == 1:
            group[key] = [group.get(key)]
        elif way == 2:
            group[draw.choice(("", "extra", key + "_", "model_type", "auto_map", "quantization_config"))] = draw.choice(
                _VALUES
            )
        else:
            group[key] = draw.choice(_VALUES)
    return value


class Readers:
    """All readers with damaged inputs made of files of the repository, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configs = [
            path.read_text() for path in sorted(Path("configs").glob("*/*.yaml")) if "sweeps" not in str(path)
        ]
        self.grids = [
            path.read_text() for path in sorted(Path("configs").glob("**/*.yaml")) if "points:" in path.read_text()
        ]
        self.config = json.loads((TINY / "config.json").read_text())
        self.checkpoint = folder / "checkpoint"
        self.checkpoint.mkdir()
        (self.checkpoint / "part.safetensors").symlink_to((TINY / "model.safetensors").resolve())
        from safetensors import safe_open  # noqa: PLC0415

        with safe_open(TINY / "model.safetensors", "np") as file:
            names = list(file.keys())
        self.run = write_run(folder / "run", "llava_onevision_7b/vanilla", {"videomme": share(6, 4)}, fixture=True)
        self.result, self.samples = (self.run / RESULT).read_text(), (self.run / SAMPLES).read_text()
        self.record = min(Path("results/tiny/maps").glob("*.npz"), key=lambda path: path.stat().st_size).read_bytes()
        with closing(AnswerLog(folder / "log")) as log:
            for number in range(4):
                log.add(Entry("videomme", number, f"key {number}", "What?", "a.mp4", "0" * 64, "B", {"before": 64.0}))
        self.log = (folder / "log" / "rank-0.jsonl").read_text()
        self.index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "part.safetensors")}

    def configuration(self, draw: random.Random) -> None:
        path = self.folder / "config.yaml"
        path.write_bytes(damaged_text(draw.choice(self.configs), draw).encode("utf-8", "surrogatepass"))
        load_config(path).build()

    def override(self, draw: random.Random) -> None:
        known = (
            "outer.retain_ratio",
            "inner",
            "outer",
            "model",
            "model.num_frames",
            "inner.merge_layer",
            "compressor",
            "method",
        )
        key = draw.choice(known)
        text = f"{key}={draw.choice(HAZARDS)}" if draw.random() < 0.6 else damaged_text(f"{key}=[0.2, {{a: 1}}]", draw)
        load_config("configs/tiny/holitom_r25.yaml", [text]).build()

    def argument(self, draw: random.Random) -> None:
        text = f"{draw.choice(('torch_dtype', 'a', 'outer', 'mm_spatial_pool_stride'))}={draw.choice(HAZARDS)}"
        assignments([damaged_text(text, draw)])
        model_arguments([text], "holitom")

    def grid(self, draw: random.Random) -> None:
        path = self.folder / "grid.yaml"
        path.write_bytes(damaged_text(draw.choice(self.grids), draw).encode("utf-8", "surrogatepass"))
        load_grid(path)

    def value(self, draw: random.Random) -> None:
        """Configurations as a caller passes them, without any text."""
        parse_config(damaged_json(parse_yaml(draw.choice(self.configs)), draw))

    def checkpoint_config(self, draw: random.Random) -> None:
        text = json.dumps(damaged_json(self.config, draw))
        text = damaged_text(text, draw) if draw.random() < 0.15 else text
        self._checkpoint(text, json.dumps(self.index))

    def checkpoint_index(self, draw: random.Random) -> None:
        index = damaged_json(self.index, draw)
        if draw.random() < 0.5 and isinstance(index.get("weight_map"), dict) and index["weight_map"]:
            index["weight_map"][draw.choice(list(index["weight_map"]))] = draw.choice(_VALUES)
        text = json.dumps(index)
        self._checkpoint(json.dumps(self.config), damaged_text(text, draw) if draw.random() < 0.2 else text)

    def _checkpoint(self, config: str, index: str) -> None:
        (self.checkpoint / "config.json").write_bytes(config.encode("utf-8", "surrogatepass"))
        (self.checkpoint / "model.safetensors.index.json").write_bytes(index.encode("utf-8", "surrogatepass"))
        check_stored(str(self.checkpoint), read_config(str(self.checkpoint)), LlavaQwenForCausalLM)

    def answer_log(self, draw: random.Random) -> None:
        """Lines that cannot be used are told on stderr and left out."""
        text = damaged_text(self.log, draw)
        if draw.random() < 0.5:
            lines = self.log.splitlines()
            lines[1] = json.dumps(damaged_json(json.loads(lines[1]), draw))
            text = "\n".join(lines)
        (self.folder / "log" / "rank-0.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
        with contextlib.redirect_stderr(io.StringIO()) as told, closing(AnswerLog(self.folder / "log")) as log:
            kept = [log.get(f"key {number}") for number in range(4)]
        assert len(told.getvalue().splitlines()) <= 1
        assert all(entry is None or (entry.answer, entry.prompt) == ("B", "What?") for entry in kept)

    def run_result(self, draw: random.Random) -> None:
        """A finished run's two files, one of them damaged."""
        result, samples = self.result, self.samples
        way = draw.randrange(3)
        if way == 0:
            result = json.dumps(damaged_json(json.loads(result), draw))
        elif way == 1:
            lines = samples.splitlines()
            lines[1] = json.dumps(damaged_json(json.loads(lines[1]), draw))
            samples = "\n".join(lines)
        else:
            samples = damaged_text(samples, draw)
        (self.run / RESULT).write_bytes(result.encode("utf-8", "surrogatepass"))
        (self.run / SAMPLES).write_bytes(samples.encode("utf-8", "surrogatepass"))
        load_result(self.run)

    def saved_record(self, draw: random.Random) -> None:
        """A record of a prompt with bytes changed or cut off, its archive's directory among them."""
        data = bytearray(self.record)
        for _ in range(draw.randint(1, 20)):
            data[draw.randrange(len(data)) if draw.random() < 0.5 else -draw.randint(1, 2000)] = draw.randrange(256)
        path = self.folder / "record.npz"
        path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.1 else data)
        load_record(path)

    def all(self) -> dict[str, Callable[[random.Random], None]]:
        """Readers by name."""
        return {
            "configuration": self.configuration,
            "--set": self.override,
            "--model-args": self.argument,
            "grid": self.grid,
            "values": self.value,
            "config.json": self.checkpoint_config,
            "index": self.checkpoint_index,
            "answer log": self.answer_log,
            "result": self.run_result,
            "record": self.saved_record,
        }


def verdict(read: Callable[[random.Random], None], draw: random.Random) -> tuple[bool, str | None]:
    """Whether a mutation was refused, and what is wrong with that, or None."""
    before = time.perf_counter()
    try:
        read(draw)
        refused, wrong = False, None
    except InputError as error:
        text = str(error)
        refused = True
        long = len(text.splitlines()) != 1 or len(text) > _LONGEST_LINE
        wrong = f"message of {len(text)} characters, {text[:200]!r}" if long else None
    except Exception as error:
        refused, wrong = False, f"{type(error).__name__}: {str(error)[:200]}"
    seconds = time.perf_counter() - before
    return refused, f"took {seconds:.1f} s" if wrong is None and seconds > _SLOWEST else wrong


def fuzz(count: int, seed: int) -> Outcome:
    """``count`` mutations, the readers in turn; the same for the same seed."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        readers = list(Readers(Path(folder)).all().items())
        for number in range(count):
            name, read = readers[number % len(readers)]
            refused, wrong = verdict(read, random.Random(f"{seed}-{number}"))
            outcome.tried[name] += 1
            outcome.refused[name] += refused
            if wrong is not None:
                outcome.failures.append(f"{name}, seed {seed}, number {number}: {wrong}")
    return outcome


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; the exit status is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    outcome = fuzz(options.count, options.seed)
    for failure in outcome.failures[:50]:
        sys.stderr.write(f"{failure}\n")
    counts = {"mutations": sum(outcome.tried.values()), "refused": dict(outcome.refused), "tried": dict(outcome.tried)}
    sys.stdout.write(json.dumps({**counts, "seed": options.seed, "failures": len(outcome.failures)}) + "\n")
    sys.exit(bool(outcome.failures))


if __name__ == "__main__":
    main()
