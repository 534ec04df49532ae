"""Many methods on one split of the data: every answer kept as it comes, so that an interruption costs little.

Answers lie in one file of JSON lines for each method, behind a line that says what they belong to; answers of another
checkpoint, other data or other settings are not taken over.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from eval.instruments.fingerprints import digest
from eval.instruments.record import write_whole
from eval.synthetic.answers.evaluate import Answer, Answerer, Encoded, by_clip, grey, needed_signals
from eval.synthetic.world.dataset import load_questions, read_manifest
from eval.synthetic.world.items import Item
from holitom.settings import RunConfig, parse_config
from llava.model.builder import load_pretrained_model
from llava.video import load_video

BLANK = "blank"  # name of the run without compression on a grey video
_CLIPS_PER_BLOCK = 12  # between two times that answers are kept
_HASHED = {".safetensors", ".json", ".txt"}


@dataclass(frozen=True)
class Campaign:
    """What is asked of whom.

    Attributes:
        checkpoint: folder of the model.
        data: folder of the data set.
        split: of the data set.
        output: folder of the answers.
        limit: clips to use, from the first; None for all.
    """

    checkpoint: Path
    data: Path
    split: str
    output: Path
    limit: int | None = None

    def data_hash(self) -> str:
        """Of the split's clips and questions."""
        return digest(read_manifest(self.data, self.split)["files"])

    def items(self) -> list[Item]:
        """The questions, those of one clip together."""
        clips = by_clip(load_questions(self.data, self.split))
        return [item for _, items in clips[: self.limit] for item in items]


def checkpoint_hash(folder: Path) -> str:
    """First 12 digits of the SHA-256 of a checkpoint's weights, settings and tokenizer, and of their names."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _HASHED and path.is_file()):
        total.update(f"{path.relative_to(folder)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def compressor_key(config: RunConfig, blank: bool = False) -> str:
    """Equal for runs that do the same, whatever file they come from."""
    said = {"settings": config.as_dict()["compressor"], "frames": config.model.num_frames, "blank": blank}
    return json.dumps(said, sort_keys=True)


class AnswerFile:
    """The answers of one method on disk."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self._header = path, dict(header)
        self.rows: dict[str, Answer] = {}
        with suppress(OSError, ValueError, TypeError, IndexError):
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if lines[0] == self._header:
                # answers of before their work was kept are asked for again
                self.rows = {line["id"]: Answer(**line) for line in lines[1:] if line.get("layers")}

    def add(self, answers: Sequence[Answer]) -> None:
        """Keep more answers; the file is replaced as a whole."""
        self.rows.update({answer.id: answer for answer in answers})
        lines = [self._header, *map(asdict, self.rows.values())]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines))


Task = tuple[list[Item], list[str]]  # questions of one clip, and the runs that have not answered them


class Worker:
    """One process's model; answers a block of clips with every run asked for."""

    def __init__(self, checkpoint: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        tokenizer, model, processor, _ = load_pretrained_model(str(checkpoint), None, "llava_qwen")
        self.configs = {key: parse_config(raw) for key, raw in configs.items()}
        self.compressors = {key: config.build() for key, config in self.configs.items()}
        self.answerer = Answerer(tokenizer, model, processor, needed_signals(self.compressors.values()))

    def answer(self, block: Sequence[Task]) -> list[tuple[str, list[Answer]]]:
        """Answers by run."""
        return [found for items, keys in block for found in self._clip(items, keys)]

    def _clip(self, items: list[Item], keys: list[str]) -> Iterator[tuple[str, list[Answer]]]:
        def frames(key: str) -> int:
            return self.configs[key].model.num_frames

        for count, group in groupby(sorted(keys, key=frames), key=frames):
            pictures = load_video(items[0].clip, count).frames
            videos: dict[bool, Encoded] = {}
            for key in group:
                blank = _is_blank(key)
                if blank not in videos:
                    videos[blank] = self.answerer.encoded(grey(pictures) if blank else pictures)
                yield key, self.answerer.answers(self.compressors[key], videos[blank], items)


_worker: Worker | None = None


def _start(checkpoint: Path, configs: Mapping[str, dict[str, Any]]) -> None:
    global _worker
    torch.set_num_threads(1)  # answers must not depend on how sums are divided among threads
    _worker = Worker(checkpoint, configs)


def _work(block: Sequence[Task]) -> list[tuple[str, list[Answer]]]:
    assert _worker is not None
    return _worker.answer(block)


def _is_blank(key: str) -> bool:
    return bool(json.loads(key)["blank"])


def run(
    campaign: Campaign, runs: Mapping[str, RunConfig], workers: int, report: Callable[[int, int], None]
) -> dict[str, list[Answer]]:
    """Answer every question of the split with every run; what is on disk already is taken from there.

    Args:
        campaign: what to ask.
        runs: name -> configuration; the name :data:`BLANK` stands for a grey video.
        workers: processes, each with one thread.
        report: called with the blocks done and the blocks to do.

    Returns:
        Answers by name, in the order of the questions.

    Raises:
        InputError: if the data, a clip or the checkpoint cannot be read, or a method does not fit the model.
    """
    items = campaign.items()
    keys = {name: compressor_key(config, name == BLANK) for name, config in runs.items()}
    facts = {"checkpoint": checkpoint_hash(campaign.checkpoint), "data": campaign.data_hash(), "split": campaign.split}
    stores = {
        key: AnswerFile(
            campaign.output / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.jsonl", {**facts, "run": key}
        )
        for key in keys.values()
    }
    tasks = []
    for _, group in by_clip(items):
        todo = [key for key, store in stores.items() if any(item.identity not in store.rows for item in group)]
        if todo:
            tasks.append((group, todo))
    blocks = [tasks[at : at + _CLIPS_PER_BLOCK] for at in range(0, len(tasks), _CLIPS_PER_BLOCK)]
    configs = {keys[name]: config.as_dict() for name, config in runs.items()}
    for done, found in enumerate(_results(campaign.checkpoint, configs, blocks, workers), start=1):
        fresh: dict[str, list[Answer]] = {}
        for key, answers in found:
            fresh.setdefault(key, []).extend(answers)
        for key, answers in fresh.items():
            stores[key].add(answers)
        report(done, len(blocks))
    return {name: [stores[key].rows[item.identity] for item in items] for name, key in keys.items()}


def _results(
    checkpoint: Path, configs: Mapping[str, dict[str, Any]], blocks: Sequence[Sequence[Task]], workers: int
) -> Iterator[list[tuple[str, list[Answer]]]]:
    """Results of the blocks in their order, from this process or from several."""
    if not blocks:
        return
    if workers == 1:
        threads = torch.get_num_threads()
        _start(checkpoint, configs)
        try:
            yield from map(_work, blocks)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (checkpoint, dict(configs))) as pool:
        yield from pool.map(_work, blocks)
