"""The launch files are what accelerate and DeepSpeed read: known keys, known values, a way to start them."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

LAUNCH = Path("configs/launch")
FILES = sorted(LAUNCH.glob("*.yaml"))
KINDS = {"gpus": (DistributedType.MULTI_GPU, 8), "cpu": (DistributedType.MULTI_GPU, 2)}
KINDS["zero3"] = (DistributedType.DEEPSPEED, 8)
# Keys of DeepSpeed's documentation that the settings use.
TOP = {"train_micro_batch_size_per_gpu", "bf16", "fp16", "zero_optimization"}
ZERO = {
    "stage", "overlap_comm", "contiguous_gradients", "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size", "stage3_max_live_parameters", "stage3_max_reuse_distance",
}  # fmt: skip


def test_there_is_a_file_for_each_way() -> None:
    assert {path.stem for path in FILES} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_accelerate_reads_them(path: Path) -> None:
    known = {field.name for field in fields(ClusterConfig)}
    assert set(yaml.safe_load(path.read_text())) <= known, "a key that accelerate does not know"
    config = load_config_from_file(str(path))
    assert (config.distributed_type, config.num_processes) == KINDS[path.stem]
    assert config.use_cpu is False, "accelerate starts one process where its CPU switch is set"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_command_in_the_header_is_one_that_accelerate_parses(path: Path) -> None:
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    command = re.search(r"accelerate launch (--config_file \S+(?: --\w+ \d+)?) (-m )?(\S+)", header)
    assert command is not None
    arguments = launch_command_parser().parse_args([*command[1].split(), "script.py"])
    assert arguments.config_file == str(path)


def test_deepspeed_settings() -> None:
    settings = json.loads((LAUNCH / "zero3.json").read_text())
    assert set(settings) == TOP
    assert set(settings["zero_optimization"]) == ZERO
    assert settings["zero_optimization"]["stage"] == 3
    launch = yaml.safe_load((LAUNCH / "zero3.yaml").read_text())["deepspeed_config"]
    assert Path(launch["deepspeed_config_file"]) == LAUNCH / "zero3.json"
    assert launch["zero3_init_flag"] is True


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is an extra: not installed")
def test_deepspeed_accepts_its_settings() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig  # noqa: PLC0415

    settings = json.loads((LAUNCH / "zero3.json").read_text())["zero_optimization"]
    known = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert set(settings) <= known, "a key that DeepSpeed does not know"
    assert DeepSpeedZeroConfig(**settings).stage == 3


def test_the_rehearsal_starts_two_processes_on_the_cpu(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom accelerate import Accelerator\n"
        f"one = Accelerator()\nfile = Path({str(tmp_path)!r}) / f'rank{{one.process_index}}'\n"
        "file.write_text(f'{one.num_processes} {one.device.type} {one.distributed_type.value}')\n"
    )
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(LAUNCH / "cpu.yaml"),
        str(script),
    ]
    done = subprocess.run(launch, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {file.name: file.read_text() for file in tmp_path.glob("rank*")} == {
        "rank0": "2 cpu MULTI_CPU",
        "rank1": "2 cpu MULTI_CPU",
    }
