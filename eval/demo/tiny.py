"""The demo's parts with the learned tiny model: questions about a rendered clip, and a quick benchmark."""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from eval.demo.output import console
from eval.synthetic.answers.campaign import Campaign, run
from eval.synthetic.answers.evaluate import Answer, Answerer, by_clip, needed_signals
from eval.synthetic.answers.scores import NOTICE, scores
from eval.synthetic.world.dataset import data_folder, load_questions, make_split
from eval.synthetic.world.selection import LETTERS
from holitom.methods import title_of
from holitom.methods.holitom import HolitomConfig
from holitom.settings import RunConfig, load_config
from holitom.shipped import CONFIGS
from llava.model.builder import load_pretrained_model
from llava.video import load_video

CLAIM = NOTICE
TINY = CONFIGS.parent / "checkpoints" / "tiny"
_SPLIT = "guard"
_CLIP = 0  # of the split
_SHARES = (25, 20, 15, 10)
_METHODS = ("holitom_without_inner", "holitom", "uniform", "random")


def _data() -> Path:
    folder = data_folder()
    with console.status("rendering clips"):
        make_split(folder, _SPLIT)
    return folder


def ask_about_rendered_clip(
    named: Mapping[str, HolitomConfig | None], frames: int, loading: Mapping[str, Any]
) -> dict[str, Any]:
    """Ask every question about one rendered clip, and show the true answers beside those of each configuration.

    Args:
        named: name -> settings; None is the model without compression.
        frames: sampled from the clip.
        loading: attention and dtype, as ``load_pretrained_model`` takes them.
    """
    tokenizer, model, processor, _ = load_pretrained_model(str(TINY), None, "llava_qwen", **loading)
    _, items = by_clip(load_questions(_data(), _SPLIT))[_CLIP]
    compressors = {name: None if config is None else config.build() for name, config in named.items()}
    answerer = Answerer(tokenizer, model, processor, needed_signals(compressors.values()))
    video = answerer.encoded(load_video(items[0].clip, frames).frames)
    found = {name: answerer.answers(compressor, video, items) for name, compressor in compressors.items()}
    console.rule("a rendered clip: the true answers are known")
    console.print(f"video       {items[0].clip}: {frames} frames sampled")
    table = Table(title=f"checkpoint {TINY.name}, learned; tokens to the LLM and in its last layer in brackets")
    for heading in ("question", "true answer", *found):
        table.add_column(heading)
    records = []
    for place, item in enumerate(items):
        options = dict(zip(LETTERS, item.question.options, strict=True))
        letter = LETTERS[item.question.answer]
        cells = [_shown(answers[place], options) for answers in found.values()]
        table.add_row(item.question.text, f"{letter}. {options[letter]}", *cells)
        said = {name: answers[place].answer for name, answers in found.items()}
        records.append({"question": item.question.text, "options": options, "true": letter, "answers": said})
    counts = {name: (answers[0].outer, answers[0].inside) for name, answers in found.items()}
    table.add_row("", "", *(f"({outer}, {inside})" for outer, inside in counts.values()))
    console.print(table)
    return {"video": str(items[0].clip), "frames": frames, "questions": records, "tokens": counts}


def _shown(answer: Answer, options: Mapping[str, str]) -> str:
    text = f"{answer.answer}. {options[answer.answer]}" if answer.answer in options else repr(answer.answer)
    return text if answer.right else f"{text} (wrong)"


def benchmark_runs() -> dict[str, RunConfig]:
    """The lines of the quick benchmark, from the files of ``configs/tiny``."""
    names = ["vanilla", *(f"{method}_r{share}" for share in _SHARES for method in _METHODS)]
    return {name: load_config(CONFIGS / "tiny" / f"{name}.yaml") for name in names}


def quick_benchmark() -> dict[str, Any]:
    """Accuracy, paired interval, tokens, FLOPs and time of HoliTom and the controls on 200 questions."""
    runs, start = benchmark_runs(), time.perf_counter()
    workers = min(2, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as answers, console.status("answering 200 questions") as status:

        def report(done: int, blocks: int) -> None:
            status.update(f"answering 200 questions: {done} of {blocks} parts")

        found = run(Campaign(TINY, data_folder(), _SPLIT, Path(answers)), runs, workers, report)
    rows = {name: scores(each, found["vanilla"]) for name, each in found.items()}
    for name, each in found.items():
        rows[name]["milliseconds"] = 1000 * median(answer.seconds for answer in each)
    console.print()
    console.print(_benchmark_table(rows, len(found["vanilla"]), next(iter(runs.values())).model.num_frames))
    console.print(f"{CLAIM}\nA difference whose interval holds 0 is no difference shown.")
    return {"rows": rows, "workers": workers, "seconds": round(time.perf_counter() - start, 1)}


def _benchmark_table(rows: Mapping[str, dict[str, Any]], questions: int, frames: int) -> Table:
    table = Table(
        title=f"{questions} questions about rendered clips, {frames} frames; tiny learned model, not the 7B one"
    )
    for heading in ("", "score %", "of full", "points against full", "tokens", "last layer", "GFLOPs", "ms"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    full = rows["vanilla"]
    for name, row in rows.items():
        method, _, share = name.partition("_r")
        gap = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * row[key] for key in ("difference", "low", "high")))
        table.add_row(
            f"{'all tokens' if row is full else title_of(method)}{f' {share} %' if share else ''}",
            f"{100 * row['score']:.1f}",
            f"{row['retention']:.1%}",
            "-" if row is full else gap,
            f"{row['outer']:.0f}",
            f"{row['inside']:.0f}",
            f"{row['gflops']:.3f} ({row['gflops'] / full['gflops']:.0%})",
            f"{row['milliseconds']:.0f}",
        )
    return table
