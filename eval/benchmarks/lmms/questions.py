"""A request of lmms-eval taken apart: its task, its words, its video, and the tokens that its prompt went through."""

import re
from pathlib import Path
from typing import Any

from holitom.record.prompt import Record
from llava.errors import InputError, VideoError


def task_of(request: Any) -> Any:
    """The task a request comes from: its ``doc_to_visual`` is a method of it."""
    return getattr(request.args[2], "__self__", None)


def stock_prompt(request: Any, doc: Any, stock_id: str) -> str:
    """The question as the task asks the stock model; some tasks choose their words by the name given to ``--model``.

    Raises:
        InputError: if they cannot be found, because the harness put examples before the question.
    """
    prompt, task = request.args[0], task_of(request)
    words = None if task is None else task.config.lmms_eval_specific_kwargs
    if not isinstance(words, dict) or stock_id not in words or task.model_name == stock_id:
        return prompt
    if task.doc_to_text(doc) != prompt:
        raise InputError(f"task {request.args[4]} adds to its question: run it without examples (num_fewshot 0)")
    ours, task.lmms_eval_specific_kwargs = task.lmms_eval_specific_kwargs, words[stock_id]
    try:
        return task.doc_to_text(doc)
    finally:
        task.lmms_eval_specific_kwargs = ours


def video_of(request: Any, doc: Any) -> Path:
    """The one video file of a question.

    Raises:
        VideoError: if the task's own code misses the file.
        InputError: if the question is about anything else than one video file.
    """
    try:
        visuals = request.args[2](doc)
    except SystemExit as stop:  # how two of the tasks say that a file is absent
        path = re.search(r"video path:(.+) does not exist", str(stop))
        raise VideoError(f"{path[1] if path else 'video'}: no such file ({stop})") from None
    if not isinstance(visuals, list) or len(visuals) != 1 or not isinstance(visuals[0], str):
        raise InputError(f"task {request.args[4]} asks about something else than one video file: use a stock model")
    return Path(visuals[0])


def tokens_of(record: Record, layers: int) -> dict[str, float]:
    """Visual tokens of the video of the latest prompt, at every stage."""
    per_layer = record.tokens_per_layer(layers)
    return {
        "before": sum(record.tokens_before),
        "before_llm": sum(record.tokens_after_outer),
        "inside_llm": per_layer[-1],
        "layer_mean": sum(per_layer) / layers,
    }
