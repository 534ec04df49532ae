"""Run the packaged tasks of lmms-eval with a model whose answers are given: python -m ... ANSWERS.json RESULT.json.

Needs HF_HOME and a current folder as the fixtures' layout demands, so it is a process of its own. The model answers
what the JSON file says for (task, doc_id), and lists the video it was handed.
"""

import json
import os
import sys
from pathlib import Path

import lmms_eval.tasks
from lmms_eval import evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager


class KnownAnswers(lmms):
    """Answers from a table."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        super().__init__()
        self.answers = answers
        self.videos: dict[str, list[str]] = {}
        self.prompts: dict[str, list[str]] = {}

    def generate_until(self, requests):
        replies = []
        for request in requests:
            prompt, _, doc_to_visual, doc_id, task, split = request.args
            paths = doc_to_visual(self.task_dict[task][split][doc_id])
            assert all(os.path.isfile(path) for path in paths), paths
            self.videos.setdefault(task, []).extend(os.path.relpath(path, os.environ["HF_HOME"]) for path in paths)
            self.prompts.setdefault(task, []).append(prompt)
            replies.append(self.answers[task][doc_id])
        return replies

    def loglikelihood(self, requests):
        raise NotImplementedError

    def generate_until_multi_round(self, requests):
        raise NotImplementedError


def main() -> None:
    """Command line."""
    answers = json.loads(Path(sys.argv[1]).read_text())
    model = KnownAnswers(answers)
    collected: dict[str, int] = {}

    def collect(results, args=None) -> None:
        for result in results:
            collected.update(result)

    full = {"metric": "submission", "aggregation": collect, "higher_is_better": True}  # the packaged one needs a server
    tasks = ["mvbench", "egoschema_subset", "longvideobench_val_v", "videomme", "mlvu_dev", "lvbench"]
    # the index of all 200 folders takes seconds
    packaged = Path(str(lmms_eval.tasks.__file__)).parent
    folders = [str(packaged / task.partition("_")[0]) for task in tasks]
    outcome = evaluator.simple_evaluate(
        model=model,
        tasks=[*tasks, {"task": "egoschema", "metric_list": [full]}],
        task_manager=TaskManager(include_path=folders, include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        process_docs_parallel=1,
    )
    kept = {"results": outcome["results"], "submission": collected, "videos": model.videos, "prompts": model.prompts}
    Path(sys.argv[2]).write_text(json.dumps(kept, default=str))


if __name__ == "__main__":
    main()
