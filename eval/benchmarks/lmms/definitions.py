"""What one release of lmms-eval makes of the paper's benchmarks; ``eval.benchmarks.versions`` runs it for each.

    PYTHONPATH=FOLDER python eval/benchmarks/lmms/definitions.py CLIP     # below data/, with HF_HOME set; ends in JSON

It runs beside another release than the installed one, so it imports nothing of this project.
"""

import argparse
import hashlib
import importlib
import inspect
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TASKS = ("mvbench", "egoschema_subset", "longvideobench_val_v", "videomme")
FOLDERS = ("mvbench", "egoschema", "longvideobench", "videomme")
FRAMES = 8
# forms of an answer: {} is the letter, {text} the option, {other} a letter that is not meant
FORMS = (
    "{}",
    "({})",
    "{}.",
    "{}. {text}",
    "{text}",
    "The answer is {}.",
    "Answer: {}",
    "The best option is {}.",
    "I think it is {}.",
    "Based on the video, the correct option is ({}).",
    "A shape is shown, so the answer is {}.",
    "It is not {other}, it is {}.",
    "Option {}: {text}",
    "Because {text}",
    "xyz",
    "",
)


def leaves(tree: dict[str, Any]) -> Iterator[Any]:
    """The tasks below groups."""
    for value in tree.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def load_tasks() -> list[Any]:
    """The four benchmarks by the release's own loader; what it would download lies below HF_HOME."""
    tasks = importlib.import_module("lmms_eval.tasks")
    engine = importlib.import_module("lmms_eval.api.task")
    if hasattr(engine, "snapshot_download"):  # 0.3.0 asks the hub even for what is there
        vars(engine)["snapshot_download"] = lambda repo_id, **_: os.environ["HF_HOME"]
    packaged = Path(str(tasks.__file__)).parent
    manager = tasks.TaskManager(
        "ERROR", [str(packaged / name) for name in FOLDERS], include_defaults=False, model_name="llava_onevision"
    )
    return sorted(leaves(tasks.get_task_dict(list(TASKS), manager)), key=lambda task: str(task.config.task))


def letters(doc: dict[str, Any]) -> tuple[str, list[str]]:
    """Letter of the right option, and all options' words."""
    if "candidates" in doc:
        return "ABCDE"[doc["candidates"].index(doc["answer"])], doc["candidates"]
    options = doc.get("options") or doc.get("option") or [doc[f"option{number}"] for number in range(5)]
    options = [str(option).partition(". ")[2] or str(option) for option in options if option != "N/A"]
    if "correct_choice" in doc:
        return "ABCDE"[int(doc["correct_choice"])], options
    answer = str(doc["answer"])
    return ("ABCDE"[int(answer)] if answer.isdecimal() else answer), options


def parsed(task: Any, doc: dict[str, Any], answer: str) -> tuple[str | None, dict[str, Any]]:
    """Letter that an answer is taken for, ``guess`` where the task draws one, None where it takes it for none."""
    random.seed(0)
    before = random.getstate()
    metrics = task.process_results(doc, [answer])
    if random.getstate() != before:
        return "guess", metrics
    if "mvbench_accuracy" in metrics:
        for letter, option in zip("ABCDE", doc["candidates"], strict=False):
            if task.process_results({**doc, "answer": option}, [answer])["mvbench_accuracy"]["score"] == 1:
                return letter, metrics
        return None, metrics
    if "lvb_acc" in metrics:
        return metrics["lvb_acc"]["parsed_pred"], metrics
    if "videomme_perception_score" in metrics:
        return metrics["videomme_perception_score"]["pred_answer"] or None, metrics
    found = metrics["score"]["pred"]
    return "ABCDE"[int(found)], metrics


def aggregate(function: Callable[..., float], scored: list[Any]) -> float:
    """The score of a log; some aggregations want the command line's arguments too, which decide nothing here."""
    wanted = inspect.signature(function).parameters
    return float(function(scored, None) if "args" in wanted else function(scored))


def of_task(task: Any) -> dict[str, Any]:
    """One task: settings, every prompt and video, how each form is read, and the score of a log of them all."""
    config, home = task.config, os.environ["HF_HOME"]
    docs = list(task.eval_docs)
    metric = next(entry["metric"] for entry in config.metric_list if entry["metric"] != "submission")
    kinds = sorted(entry["metric"] for entry in config.metric_list)
    read: dict[str, dict[str, str | None]] = {}
    scored = []
    for number, doc in enumerate(docs):
        letter, options = letters(doc)
        other = "ABCDE"[("ABCDE".index(letter) + 1) % len(options)]
        texts = [form.format(letter, text=options["ABCDE".index(letter)], other=other) for form in FORMS]
        read[str(number)] = {text: parsed(task, doc, text)[0] for text in texts}
        scored += [parsed(task, doc, text)[1][metric] for text in texts]
    generation = {key: value for key, value in sorted((config.generation_kwargs or {}).items())}
    return {
        "settings": {
            "dataset": config.dataset_path,
            "config": config.dataset_name,
            "split": config.test_split,
            "revision": (config.dataset_kwargs or {}).get("revision"),
            "generation": generation,
            "metrics": kinds,
        },
        "prompts": [task.doc_to_text(doc) for doc in docs],
        "videos": [os.path.relpath(task.doc_to_visual(doc)[0], home) for doc in docs],
        "read": read,
        "right": [letters(doc)[0] for doc in docs],
        "score": aggregate(task.aggregation()[metric], scored),
    }


def frames_of(clip: str) -> str:
    """SHA-256 of the frames that the release's llava_onevision reads of a clip."""
    for name in ("lmms_eval.models.simple.llava_onevision", "lmms_eval.models.llava_onevision"):
        try:
            model = importlib.import_module(name).Llava_OneVision
        except ModuleNotFoundError as error:
            if not name.startswith(str(error.name)):
                raise
            continue
        return hashlib.sha256(model.load_video(None, clip, FRAMES).tobytes()).hexdigest()
    raise SystemExit("no llava_onevision in this release")


def tokens_without_limit() -> int:
    """New tokens that the release's llava_onevision allows where a task says nothing, read from its source."""
    for name in ("lmms_eval.models.simple.llava_onevision", "lmms_eval.models.llava_onevision"):
        if name in sys.modules:
            text = inspect.getsource(sys.modules[name].Llava_OneVision.generate_until)
            return int(text.partition('gen_kwargs["max_new_tokens"] = ')[2].split()[0])
    raise SystemExit("frames_of comes first")


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", help="a file whose frames are read")
    options = parser.parse_args()
    found = {task.config.task: of_task(task) for task in load_tasks()}
    frames = frames_of(options.video)
    facts = {
        "folder": str(Path(str(importlib.import_module("lmms_eval").__file__)).parent),
        "frames": frames,
        "tokens": tokens_without_limit(),
    }
    print(json.dumps({**facts, "tasks": found}))


if __name__ == "__main__":
    main()
