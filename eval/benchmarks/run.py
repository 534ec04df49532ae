"""One configuration on the benchmarks of lmms-eval, with one result file that says how it came about.

    python -m eval.benchmarks.run configs/llava_onevision_7b/holitom_r15.yaml --checkpoint DIR --data DIR \\
        --tasks mvbench,egoschema_subset,longvideobench_val_v,videomme -o results/holitom_r15

The task definitions are lmms-eval's own, of the installed release or with ``--harness 0.3.0`` of the paper's. Below
``--data`` lie ``data/<dataset id>`` with the questions and ``hf`` with the videos (``python -m eval.benchmarks.data
verify`` checks both); nothing is downloaded. Every answer is on disk before the next question begins: the same command
continues a run that was stopped, whatever stopped it. ``result.json`` and ``samples.jsonl`` are written when all
questions are answered; they do not depend on ``--num-processes``, and two runs differ in ``times`` alone. A video is
read while the model answers, and encoded once for all its questions; ``--prefetch 0 --no-reuse`` does neither and
gives the same answers. ``--tasks synthvid`` asks this project's own benchmark, which is made on first use in
``outputs/synthvid`` (or the folder SYNTHVID_DATA), and needs no ``--data``.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eval import PACKAGE
from eval.benchmarks.data.fixtures import fixture_marker
from eval.benchmarks.launching import answer_in_processes, environment, prepare
from eval.benchmarks.lmms.harness import HARNESS_FOLDER, definitions_of
from eval.benchmarks.lmms.records import RECORDS
from eval.benchmarks.lmms.settings import assignments, model_arguments
from eval.benchmarks.lmms.vllm_engine import ENGINES, RUNTIME, check_engine
from eval.benchmarks.lmms.worker import Job, interruptible
from eval.benchmarks.nodes import answer_on_node, node_group
from eval.benchmarks.plugin import CLASSES
from eval.benchmarks.rehearsal import own_tasks, prepare_own_data
from eval.benchmarks.shares import enter_share
from eval.instruments.cli import Count, Parser, user_errors
from eval.instruments.fingerprints import local_checkpoint
from eval.paper.benchmarks import HARNESS, PAPER_HARNESS
from eval.paper.grids import point_name
from holitom.settings import RunConfig, load_config
from holitom.shipped import config_file
from llava.errors import InputError

OUTPUTS = Path("outputs/lmms")


def parser() -> Parser:
    """The options."""
    found = Parser(description=__doc__)
    found.add_argument("config", help="YAML file, or the name of one of configs/")
    found.add_argument("--tasks", required=True, help="names of lmms-eval, separated by commas")
    found.add_argument("-o", "--output", type=Path, help=f"folder of the result; default: one of its own in {OUTPUTS}")
    found.add_argument("--checkpoint", help="folder or hub id; the configuration's without it")
    found.add_argument("--data", type=Path, help="folder with data/ and hf/; the current folder and HF_HOME without it")
    found.add_argument("--include-path", type=Path, help="task definitions of your own (synthvid needs none)")
    found.add_argument(
        "--harness",
        choices=(HARNESS, PAPER_HARNESS),
        default=HARNESS,
        help=f"whose task definitions ask, read and score: {PAPER_HARNESS} is the paper's (default {HARNESS})",
    )
    found.add_argument(
        "--harness-folder",
        type=Path,
        default=HARNESS_FOLDER,
        help=f"where lmms-eval {PAPER_HARNESS} is; bash scripts/harness_030.sh puts it there",
    )
    found.add_argument("--limit", action=Count, help="only the first questions of every task")
    found.add_argument("--num-processes", action=Count, default=1, help="processes that share the questions (torchrun)")
    found.add_argument(
        "--nnodes", action=Count, default=1, help="machines that torchrun starts them on: as many on each"
    )
    found.add_argument("--node-rank", type=int, metavar="I", help="of this machine, from 0; with --nnodes")
    found.add_argument("--rdzv-endpoint", metavar="HOST:PORT", help="where node 0 waits for the others; with --nnodes")
    found.add_argument(
        "--share",
        metavar="I/N",
        help="answer share I of N, 0-based, and score if all N are answered; no file lock: see eval.benchmarks.shares",
    )
    found.add_argument("--merge", action=Count, metavar="N", help="score what N shares answered; starts no model")
    found.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use the answers that an earlier run of the same setup left (default)",
    )
    found.add_argument(
        "--save-records",
        action="store_true",
        help=f"keep what became of every question's tokens in {RECORDS}/, for holitom.show --record",
    )
    found.add_argument(
        "--reuse",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="encode a video once for all its questions where the method allows it; answers are the same (default)",
    )
    found.add_argument(
        "--prefetch",
        action=Count,
        least=0,
        default=1,
        metavar="N",
        help="videos that are read while the model answers, each in memory; 0 reads none ahead (default 1)",
    )
    found.add_argument("--engine", choices=ENGINES, default=RUNTIME, help="what runs the LLM: docs/serving.md")
    found.add_argument(
        "--engine-args", action="append", default=[], metavar="KEY=VALUE", help="of vllm.LLM, e.g. max_model_len=8192"
    )
    found.add_argument("--on-bad-video", choices=("stop", "count"), default="stop")
    found.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. outer.retain_ratio=0.2")
    found.add_argument("--model", choices=sorted(CLASSES), help="stock model; LLaVA-Video checkpoints need llava_vid")
    found.add_argument(
        "--model-args",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the stock model, e.g. torch_dtype=bfloat16",
    )
    return found


def default_output(options: argparse.Namespace, tasks: Sequence[str]) -> Path:
    """Below ``outputs/lmms``: model, configuration with its changes, tasks with their limit."""
    limit = [] if options.limit is None else [f"limit={options.limit}"]
    harness = [] if options.harness == HARNESS else [f"harness={options.harness}"]
    words = ",".join([*tasks, *limit, *harness])
    return OUTPUTS / point_name(Path(options.config).resolve(), options.set) / re.sub(r"[^-\w.=,]+", "_", words)


def _check_counts(options: argparse.Namespace) -> None:
    gpus = torch.cuda.device_count()
    if 0 < gpus < options.num_processes:
        raise InputError(f"--num-processes = {options.num_processes} exceeds the {gpus} GPU(s): one process needs one")


def _engine(options: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    """Arguments of the engine; none for the runtime, whose answers depend on no engine."""
    if options.engine == RUNTIME and not options.engine_args:
        return {}
    found = {"engine": options.engine, "engine_args": assignments(options.engine_args)}
    if options.num_processes > 1:
        raise InputError("--engine vllm runs in one process: --engine-args tensor_parallel_size=N takes more GPUs")
    check_engine(options.engine, found["engine_args"], config)
    return found


def _definitions(options: argparse.Namespace) -> str | None:
    """Folder of the harness whose definitions ask; None for the installed one."""
    if options.harness != PAPER_HARNESS:
        return None
    definitions_of(options.harness_folder)
    return str(options.harness_folder.resolve())


def make_job(options: argparse.Namespace) -> Job:
    """Check the options and find the checkpoint.

    Raises:
        InputError: for an option out of range, a wrong configuration or an absent checkpoint.
    """
    _check_counts(options)
    tasks = [task for task in options.tasks.split(",") if task]
    if not tasks or len(set(tasks)) != len(tasks):
        raise InputError(f"--tasks {options.tasks!r} names no task, or one twice")
    config = load_config(options.config, options.set)
    named = options.checkpoint or config.model.pretrained
    if named is None:
        raise InputError(f"{options.config} names no checkpoint: give --checkpoint")
    video = "llava-video" in str(config.model.pretrained or named).lower()
    arguments = {
        "pretrained": str(local_checkpoint(named)),
        "config": str(config_file(options.config).resolve()),
        **assignments(options.set),
        **model_arguments(options.model_args, config.method),
        **_engine(options, config),
    }
    include = options.include_path or own_tasks(tasks)
    return Job(
        model=options.model or ("llava_vid" if video else "llava_onevision"),
        arguments=arguments,
        tasks=tasks,
        limit=options.limit,
        include_path=None if include is None else str(include.resolve()),
        output=str((options.output or default_output(options, tasks)).resolve()),
        config_file=options.config,
        overrides=options.set,
        checkpoint=str(named),
        fixture=options.data is not None and fixture_marker(options.data) is not None,
        on_bad_video=options.on_bad_video,
        processes=options.num_processes,
        started=time.time(),
        save_records=options.save_records,
        harness=options.harness,
        definitions=_definitions(options),
        reuse=options.reuse,
        prefetch=options.prefetch,
    )


@user_errors
def main() -> None:
    """Command line."""
    options = parser().parse_args()
    job = make_job(options)
    group, env = node_group(options), environment(job, options.data)
    folder = (options.data / "data" if options.data is not None else Path.cwd()).absolute()
    if options.share is not None or options.merge is not None:
        enter_share(job, options, env)
    if group is not None:
        with interruptible(job.folder):
            answer_on_node(job, group, env, folder)
        return
    prepare_own_data(job.tasks)
    path = prepare(job, options.resume)
    step = []
    if job.processes > 1:
        with interruptible(job.folder):
            answer_in_processes(job, path, env, folder)
        step = ["--score"]
    os.chdir(folder)
    sys.stdout.flush()
    # in the place of this process, so that whoever stops it stops the work
    os.execve(sys.executable, [sys.executable, "-m", f"{PACKAGE}.benchmarks.lmms.worker", str(path), *step], env)


if __name__ == "__main__":
    main()
