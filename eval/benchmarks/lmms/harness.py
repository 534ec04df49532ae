"""lmms-eval's own evaluation, on its own task definitions, in this process."""

import difflib
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms.answer_log import Served
from eval.benchmarks.lmms.answering import SCORING_SEED
from eval.benchmarks.lmms.questions import task_of
from eval.paper.benchmarks import BY_TASK, HARNESS, PAPER_HARNESS
from holitom.files import disk_trouble
from llava.errors import InputError

# folders below lmms_eval/tasks that hold the paper's benchmarks; indexing all others takes seconds
_BENCHMARK_FOLDERS = frozenset(task.partition("_")[0] for task in BY_TASK)  # of the harness' definitions
HARNESS_FOLDER = Path("outputs/harness-0.3.0")  # where scripts/harness_030.sh puts the paper's release
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "scoring": SCORING_SEED}


@dataclass(frozen=True)
class HarnessOutput:
    """What the harness returned, and its tasks by name."""

    results: dict[str, Any]
    tasks: dict[str, Any]


def keep_submissions(results: list[dict[str, int]]) -> None:
    """Instead of posting EgoSchema's answers to a server: the submission file is made from the samples."""


def definitions_of(folder: Path) -> Path:
    """The task definitions of the paper's harness in a folder of their own.

    Raises:
        InputError: they are not there, or those of another release.
    """
    remedy = "bash scripts/harness_030.sh puts it there, --harness-folder names another place"
    found = sorted(path.name for path in folder.glob("lmms_eval-*.dist-info")) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder} holds no lmms-eval {PAPER_HARNESS}: {remedy}")
    if found != [f"lmms_eval-{PAPER_HARNESS}.dist-info"]:
        raise InputError(f"{folder} holds {', '.join(found)}, not lmms-eval {PAPER_HARNESS}: {remedy}")
    return folder / "lmms_eval" / "tasks"


def longvideobench_video(doc: dict[str, Any]) -> list[str]:
    """Where this project's data have the video, a folder that the paper's harness names otherwise."""
    home = os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return [os.path.join(home, BY_TASK["longvideobench_val_v"].videos, doc["video_path"])]


def _paper_entry(name: str, manager: Any) -> str | dict[str, Any]:
    """A task of the paper's harness: its words, settings and reading, with the data where this project has them."""
    from lmms_eval.utils import load_yaml_config  # noqa: PLC0415

    if name not in BY_TASK or name == "mvbench":
        return name
    entry: dict[str, Any] = {"task": name, "dataset_path": BY_TASK[name].dataset}
    if name == "longvideobench_val_v":
        entry["doc_to_visual"] = longvideobench_video
    if name == "egoschema_subset":  # its submission file would be written to the working folder
        metrics = load_yaml_config(manager.task_index[name]["yaml_path"], mode="full")["metric_list"]
        entry["metric_list"] = [metric for metric in metrics if metric["metric"] != "submission"]
    return entry


def task_entry(name: str, manager: Any = None) -> str | dict[str, Any]:
    """A task as the harness is asked for it; full EgoSchema with its aggregation replaced.

    Args:
        name: of the task.
        manager: the index of the paper's harness, or None for the installed one.
    """
    if name != "egoschema":
        return name if manager is None else _paper_entry(name, manager)
    return {
        **({} if manager is None else {"dataset_path": BY_TASK[name].dataset}),
        "task": name,
        "metric_list": [{"metric": "submission", "aggregation": keep_submissions, "higher_is_better": True}],
    }


def names_unless_mentioned(tasks: Sequence[str], folder: Path) -> set[str] | None:
    """Names that definitions give to tasks, groups and tags; None if each of some tasks is mentioned in one of them.

    Indexing them all takes seconds, which a name that stands nowhere need not wait for.

    Args:
        tasks: that the index should know.
        folder: of the definitions, with all folders below it.
    """
    text = "\n".join(path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*yaml")) if path.is_file())
    if all(re.search(rf"(?<![\w.-]){re.escape(task)}(?![\w.-])", text) for task in tasks):
        return None
    name = r"""^["']?(?:task|group|tag)["']?[ \t]*:(?:\s*-)?[ \t]*["']?(\w[\w.-]*)"""
    return set(re.findall(name, text, re.MULTILINE))


@cache
def task_manager(
    stock_id: str, tasks: tuple[str, ...], include_path: str | None, definitions: str | None = None
) -> Any:
    """The harness' index of tasks, as for the stock model, whose name decides some prompts.

    ``definitions`` is the folder of the paper's harness, None for the installed release's own.

    Raises:
        InputError: for an unknown task or a folder that is none.
    """
    import lmms_eval.tasks  # noqa: PLC0415

    if include_path is not None and not Path(include_path).is_dir():
        raise InputError(f"include path {include_path!r} is no folder: name one that holds task definitions")
    own = [] if include_path is None else [include_path]
    packaged = Path(str(lmms_eval.tasks.__file__)).parent
    if definitions is not None:
        packaged = definitions_of(Path(definitions))
    few = {folder for folder in _BENCHMARK_FOLDERS if any(task.startswith(folder) for task in tasks)}
    manager = lmms_eval.tasks.TaskManager(
        "ERROR", [*(str(packaged / folder) for folder in sorted(few)), *own], False, model_name=stock_id
    )
    names = set(manager.all_tasks)
    absent = [task for task in tasks if task not in names]
    if definitions is None and absent:
        more = names_unless_mentioned(absent, packaged)
        if more is None:
            manager = lmms_eval.tasks.TaskManager("ERROR", own or None, model_name=stock_id)
        names |= set(manager.all_tasks) if more is None else more
    for task in tasks:
        if task not in names:
            close = difflib.get_close_matches(task, sorted(names), 3)
            if definitions is not None and not close:
                raise InputError(
                    f"task {task!r} is none that --harness {PAPER_HARNESS} runs: it knows {', '.join(BY_TASK)}; "
                    f"without it {HARNESS} asks"
                )
            hint = f": did you mean {', '.join(close)}?" if close else ": --include-path names a folder with your own"
            raise InputError(f"task {task!r} is unknown to lmms-eval{hint}")
    return manager


def _explained(error: Exception, tasks: Sequence[str]) -> Exception:
    """A user's mistake where questions cannot be loaded, which the harness tries several times; else the same error."""
    cause = error.last_attempt.exception() if hasattr(error, "last_attempt") else error
    trouble = disk_trouble(cause)
    if trouble is not None:
        return InputError(f"{trouble}; finished answers are kept")
    if cause is error and not isinstance(error, FileNotFoundError):
        return error
    return InputError(
        f"the questions of {', '.join(tasks)} cannot be loaded ({' '.join(str(cause).split())[:300]}): "
        f"python -m eval.benchmarks.data verify tells what is missing beside {os.getcwd()}"
    )


def evaluate(
    model: Any,
    stock_id: str,
    tasks: Sequence[str],
    limit: int | None = None,
    include_path: str | None = None,
    definitions: str | None = None,
) -> HarnessOutput | None:
    """Run the tasks with a model; with several processes each answers its share, and all but the first return None.

    Raises:
        InputError: if a task is unknown or its questions cannot be loaded.
    """
    from lmms_eval.evaluator import simple_evaluate  # noqa: PLC0415

    manager = task_manager(stock_id, tuple(tasks), include_path, definitions)
    try:
        results = simple_evaluate(
            model=model,
            tasks=[task_entry(task, None if definitions is None else manager) for task in tasks],
            task_manager=manager,
            limit=limit,
            batch_size=1,
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
            random_seed=SEEDS["random"],
            numpy_random_seed=SEEDS["numpy"],
            torch_random_seed=SEEDS["torch"],
            distributed_executor_backend="torchrun",  # gloo or NCCL, whichever there is
            process_docs_parallel=1,  # threads would race for the random guesses
        )
    except SystemExit as stop:
        raise InputError(f"lmms-eval gave up: {stop}") from None
    except Exception as error:
        explained = _explained(error, tasks)
        if explained is error:
            raise
        raise explained from error
    return None if results is None else HarnessOutput(results, model.tasks)


@cache
def _replay_class() -> type:
    from lmms_eval.api.model import lmms  # noqa: PLC0415

    class Replay(lmms):
        """Answers from entries alone, so that scores do not depend on how many processes made them."""

        def __init__(self, served: Served) -> None:
            super().__init__()
            self.served = served
            self.tasks: dict[str, Any] = {}

        def generate_until(self, requests: list[Any]) -> list[str]:
            """Every question must have been answered, with the prompt it has now."""
            texts = []
            for request in requests:
                task, doc_id = request.args[4], request.args[3]
                self.tasks[task] = task_of(request)
                entry = self.served.entries.get((task, doc_id))
                if entry is None or entry.prompt != request.args[0]:
                    what = "was not answered" if entry is None else "was answered with another prompt"
                    raise InputError(f"task {task}, question {doc_id} {what}: run the same command again")
                texts.append(entry.answer or "")
            random.seed(SCORING_SEED)
            return texts

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    return Replay


def replay(served: Served) -> Any:
    """A model of the harness that repeats answers given before."""
    return _replay_class()(served)
