"""A run that torchrun starts on several machines: here two nodes on one, joined at a port of it."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eval.benchmarks import node_process
from eval.benchmarks.launching import environment
from eval.benchmarks.lmms.results import load_result
from eval.benchmarks.node_process import process_environment
from eval.benchmarks.nodes import NodeGroup, _why, answer_on_node, node_group
from eval.benchmarks.run import make_job, parser
from llava.errors import InputError
from tests.eval.benchmarks.lmms_runs import HOLITOM, command, run_here, same_but_times, write_config

TASKS = "egoschema_subset"  # 2 questions about 2 videos
PATIENCE = 600.0  # seconds, on a machine that does other things
WORDS = ["config.yaml", "--tasks", "videomme"]
NODES = ["--nnodes", "2", "--node-rank", "1", "--rdzv-endpoint", "a1:29500"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_node(words: list[str]) -> None:
    """What ``eval.benchmarks.run`` does on one node, without its start-up."""
    options = parser().parse_args(words)
    job, group = make_job(options), node_group(options)
    assert group is not None
    answer_on_node(job, group, environment(job, options.data), options.data / "data")


def test_two_nodes_leave_the_result_of_one_process(
    tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "config.yaml", HOLITOM)
    endpoint = f"127.0.0.1:{free_port()}"
    words = command(config, tiny, benchmarks, TASKS, tmp_path / "nodes", "--nnodes", "2", "--rdzv-endpoint", endpoint)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor() as pool:  # in any order
        for node in [pool.submit(start_node, [*words, "--node-rank", str(rank)]) for rank in (1, 0)]:
            node.result(PATIENCE)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["node"] for line in said) == [0, 1]
    assert any(line["scored"] for line in said)
    run_here(monkeypatch, command(config, tiny, benchmarks, TASKS, tmp_path / "one"))
    same_but_times(tmp_path / "nodes", tmp_path / "one")
    result, samples = load_result(tmp_path / "nodes")
    assert result["times"]["processes"] == 2
    assert result["times"]["questions_computed"] == len(samples) == 2
    logs = sorted((tmp_path / "nodes" / "answers").glob("rank-of2-*.jsonl"))
    assert len(logs) == 2
    assert all(log.stat().st_size for log in logs), "each node answered"
    (shares,) = {path.parent for path in (tmp_path / "nodes" / "answers").glob("*/share-*.json")}
    assert {path.name for path in shares.glob("node-*.log")} == {"node-0.log", "node-1.log"}
    assert not list(shares.glob("job-*")), "nothing of the start is left"


def test_what_torchrun_is_told() -> None:
    group = node_group(parser().parse_args([*WORDS, *NODES, "--num-processes", "8"]))
    assert group == NodeGroup(2, 1, "a1:29500", 8)
    words = " ".join(group.command()[1:])
    assert words.startswith("-m torch.distributed.run --nnodes 2 --node-rank 1 --nproc-per-node 8 ")
    assert "--rdzv-endpoint a1:29500" in words
    assert node_group(parser().parse_args(WORDS)) is None
    alone = [*WORDS, "--nnodes", "1", "--node-rank", "0", "--rdzv-endpoint", "a1:29500"]
    assert node_group(parser().parse_args(alone)) is None, "a scheduler may give one node to the same script"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--nnodes", "0"], "--nnodes = 0 is out of range"),
        (["--nnodes", "2"], "--nnodes 2 needs --node-rank"),
        (["--nnodes", "2", "--node-rank", "0"], "--nnodes 2 needs --rdzv-endpoint"),
        (["--node-rank", "1"], "--node-rank = 1 is out of range: it must be from 0 to 0"),
        ([*NODES, "--node-rank", "2"], "--node-rank = 2 is out of range: it must be from 0 to 1"),
        ([*NODES, "--node-rank", "-1"], "--node-rank = -1 is out of range"),
        ([*NODES, "--rdzv-endpoint", "a1"], "--rdzv-endpoint 'a1' is no address"),
        ([*NODES, "--rdzv-endpoint", "a1:0"], "is no address"),
        ([*NODES, "--rdzv-endpoint", "a1:65536"], "is no address"),
        ([*NODES, "--share", "0/2"], "give one of them"),
        ([*NODES, "--merge", "2"], "give one of them"),
        ([*NODES, "--no-resume"], "--nnodes goes without --no-resume"),
        ([*NODES, "--engine", "vllm"], "use --share I/N for several machines"),
    ],
)
def test_options_that_do_not_fit_together(words: list[str], why: str) -> None:
    with pytest.raises(InputError) as refused:
        node_group(parser().parse_args([*WORDS, *words]))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_share_sees_one_gpu_and_no_group() -> None:
    group = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "MASTER_ADDR": "a"}
    more = {"MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x", "ROLE_RANK": "3", "ACCELERATE_USE_CPU": "1"}
    torchrun = {**group, **more, "LOCAL_RANK": "1", "PATH": "/bin"}
    assert process_environment(torchrun) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}
    visible = process_environment({**torchrun, "CUDA_VISIBLE_DEVICES": "4,6"})
    assert visible["CUDA_VISIBLE_DEVICES"] == "6"
    hidden = process_environment({**torchrun, "CUDA_VISIBLE_DEVICES": ""})
    assert hidden["CUDA_VISIBLE_DEVICES"] == ""


def test_a_process_becomes_the_share_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(node_process.os, "execve", lambda _, command, env: became.append(command))
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    node_process.main(["job.json", "cache"])
    assert became[0][1:] == ["-m", "eval.benchmarks.shares", "job.json", "cache", "--share", "3", "--keep"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("W1129 torchrun\nerror: task 'videomm' is unknown\nTraceback", "task 'videomm' is unknown"),
        ("torch.distributed.DistStoreError: Timed out", "the 2 nodes did not meet at a1:29500 within 600 s"),
        ("torch.distributed.DistNetworkError: refused", "the 2 nodes did not meet at a1:29500"),
        ("Signal 9 (SIGKILL) received", "a process of node 1 failed or was killed (status 1)"),
    ],
)
def test_what_went_wrong_is_said_in_one_line(tmp_path: Path, text: str, why: str) -> None:
    log = tmp_path / "node-1.log"
    log.write_text(text)
    said = _why(log, NodeGroup(2, 1, "a1:29500", 1), 1)
    assert why in said
    assert "\n" not in said
