"""One node of a benchmark run that torchrun starts on several: ``--nnodes``, ``--node-rank``, ``--rdzv-endpoint``.

The same command runs on every node, with another ``--node-rank``. torchrun brings the nodes together at the endpoint,
on node 0, and starts ``--num-processes`` processes on each; every process answers one share of the questions, as with
``--share`` (:mod:`eval.benchmarks.shares`): nodes need a common folder, a share that died goes on when its node is
started again, and the last share scores. Shares exchange nothing else: no process waits for another but to begin.
"""

import json
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eval import PACKAGE
from eval.benchmarks.lmms.vllm_engine import RUNTIME
from eval.benchmarks.lmms.worker import Job
from eval.benchmarks.shares import hand_over, is_scored, shared_job, unanswered
from llava.errors import InputError, shown

JOIN_SECONDS = 600  # how long the nodes wait for each other


@dataclass(frozen=True)
class NodeGroup:
    """Which node of how many this is, and how torchrun finds the others.

    Attributes:
        nodes: how many.
        rank: of this one, from 0.
        endpoint: HOST:PORT of node 0.
        processes: on each node.
    """

    nodes: int
    rank: int
    endpoint: str
    processes: int

    def command(self) -> list[str]:
        """torchrun with what it needs to know."""
        return [
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", str(self.nodes), "--node-rank", str(self.rank), "--nproc-per-node", str(self.processes)),
            *("--rdzv-backend", "static", "--rdzv-endpoint", self.endpoint),
            *("--rdzv-conf", f"timeout={JOIN_SECONDS}", "--max-restarts", "0"),
        ]


def node_group(options: Namespace) -> NodeGroup | None:
    """The nodes that the options ask for; None for this machine alone.

    Raises:
        InputError: if an option is missing, out of range or does not go with nodes.
    """
    nodes, rank, endpoint = options.nnodes, options.node_rank, options.rdzv_endpoint
    if rank is not None and not 0 <= rank < nodes:
        raise InputError(f"--node-rank = {rank} is out of range: it must be from 0 to {nodes - 1}, --nnodes less 1")
    if nodes == 1:
        return None
    if rank is None or endpoint is None:
        missing = "--node-rank" if rank is None else "--rdzv-endpoint"
        raise InputError(f"--nnodes {nodes} needs {missing}: give every node its rank and HOST:PORT of node 0")
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", endpoint)
    if not found or not 0 < int(found[2]) < 65536:
        raise InputError(
            f"--rdzv-endpoint {shown(endpoint)} is no address: it must be HOST:PORT of node 0, as a1:29500"
        )
    if options.share is not None or options.merge is not None:
        raise InputError(
            "--nnodes has torchrun start the shares, --share and --merge leave it to you: give one of them"
        )
    if not options.resume:
        raise InputError(
            "--nnodes goes without --no-resume, which nodes cannot do at one time: delete the folder instead"
        )
    if options.engine_args or options.engine != RUNTIME:
        raise InputError("--engine vllm runs in one process: use --share I/N for several machines")
    return NodeGroup(nodes, rank, endpoint, options.num_processes)


def answer_on_node(job: Job, group: NodeGroup, env: Mapping[str, str], folder: Path) -> None:
    """Answer the shares of this node, and score if one of them was the last.

    Args:
        job: what is asked.
        group: the nodes.
        env: of the processes.
        folder: in which they run.

    Raises:
        InputError: if the nodes did not meet or a process failed; finished answers are kept.
    """
    job = shared_job(job, group.nodes * group.processes)
    path, cache = hand_over(job)
    log = job.shares / f"node-{group.rank}.log"
    print(f"node {group.rank} of {group.nodes}: {group.processes} process(es) answer; see {log}", file=sys.stderr)
    try:
        with log.open("w") as out:
            ended = subprocess.run(
                [*group.command(), "-m", f"{PACKAGE}.benchmarks.node_process", str(path), cache],
                env={**env, "HF_DATASETS_CACHE": cache},
                cwd=folder,
                stdout=out,
                stderr=out,
            )
    finally:
        path.unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)
    if ended.returncode != 0:
        raise InputError(_why(log, group, ended.returncode))
    facts = {"scored": is_scored(job), "left": unanswered(job)}
    print(json.dumps({"output": job.output, "node": group.rank, **facts}))


def _why(log: Path, group: NodeGroup, status: int) -> str:
    """What went wrong in a node's processes, in one line."""
    text = log.read_text(encoding="utf-8", errors="replace")
    said = re.search(r"^error: (.+)$", text, re.MULTILINE)
    if said:
        return said[1]
    if "DistStoreError" in text or "DistNetworkError" in text or "RendezvousConnectionError" in text:
        return (
            f"the {group.nodes} nodes did not meet at {group.endpoint} within {JOIN_SECONDS} s: start the same command "
            f"on each, node 0 on the host of the endpoint; see {log}"
        )
    return (
        f"a process of node {group.rank} failed or was killed (status {status}): see {log}; finished answers are kept, "
        "the same command continues"
    )
