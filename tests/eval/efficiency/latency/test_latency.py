"""The latency benchmark: what a result holds, that stages and counts are those of the run, and what it refuses."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eval.efficiency.latency.__main__ import main
from eval.efficiency.latency.bench import against
from eval.efficiency.latency.clips import draw_clip
from eval.efficiency.latency.clock import StageClock
from eval.efficiency.latency.run import _by_stage, make_prompt, random_ids, run_once
from eval.instruments.measure import device_state, spread
from eval.instruments.models.geometries import GEOMETRIES, geometry_config, random_model
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from holitom.methods.fastv import FastvConfig
from holitom.methods.holitom import HolitomConfig, InnerConfig, OuterConfig
from holitom.methods.uniform import UniformConfig
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
from llava.model.static_decoding import StaticDecoder
from tests.references.calls import noted

CONFIGS = [f"configs/tiny/{name}.yaml" for name in ("holitom_r10", "vanilla", "fastv", "uniform_r10")]
SMALL = ["--geometry", "tiny", "--device", "cpu", "--dtype", "float32", "--threads", "1", "--frames", "4"]
STAGES = {
    "video", "preprocess", "tower", "signals", "projector", "outer", "prefill", "inner", "time_to_first_token",
    "time_per_output_token",
}  # fmt: skip


def run(capsys, *arguments: str) -> dict[str, Any]:
    main([*SMALL, *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, *arguments])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module")
def model() -> LlavaQwenForCausalLM:
    return random_model("tiny", "cpu", torch.float32)


@pytest.fixture
def prompt(model: LlavaQwenForCausalLM):
    frames = draw_clip(4, 0.5).frames
    pixels = model.get_vision_tower().image_processor.preprocess(frames, return_tensors="pt")["pixel_values"]
    return make_prompt(model, random_ids(model.config.vocab_size), pixels)


def test_a_result_holds_every_stage_of_every_configuration(capsys) -> None:
    result = run(capsys, "--configs", *CONFIGS, "--redundancy", "0", "0.5", "--repetitions", "2", "--new-tokens", "3")
    wanted = {"geometry", "checkpoint", "random_weights", "dtype", "attention", "device", "driver", "clocks", "frames",
              "clip", "repetitions", "new_tokens", "rows", "commit", "torch", "transformers"}  # fmt: skip
    assert wanted <= set(result)
    assert result["random_weights"] is True
    assert result["clip"] == {"name": "drawn, 0% still", "redundancy": 0.0}
    assert [row["config"] for row in result["rows"]] == 2 * ["vanilla", "holitom_r10", "fastv", "uniform_r10"]
    for row in result["rows"]:
        check_row(row, repetitions=2)
    vanilla, holitom, fastv, uniform = result["rows"][:4]
    absent = {"vanilla": {"signals", "outer", "inner"}, "holitom_r10": set(), "fastv": {"signals", "outer"},
              "uniform_r10": {"signals", "inner"}}  # fmt: skip
    for row in (vanilla, holitom, fastv, uniform):
        assert {name for name, value in row["stages_ms"].items() if value is None} == absent[row["config"]] | {"video"}
    assert vanilla["tokens"] == {"prompt": 4 * 196 + 1 + 35, "visual": 784, "before_llm": 784, "inside_llm": 784,
                                 "budget": None}  # fmt: skip
    assert uniform["tokens"]["before_llm"] == uniform["tokens"]["budget"] == 4 * 20
    assert 4 * 15 < holitom["tokens"]["before_llm"] <= holitom["tokens"]["budget"]
    assert holitom["tokens"]["inside_llm"] == pytest.approx(holitom["tokens"]["before_llm"] / 2, abs=1)
    assert fastv["tokens"]["before_llm"] == 784 > fastv["tokens"]["inside_llm"]


def check_row(row: dict[str, Any], repetitions: int) -> None:
    """One row: types, and numbers that cannot be otherwise."""
    stages = row["stages_ms"]
    assert set(stages) == STAGES
    for value in [value for value in stages.values() if value is not None] + [row["tokens_per_second"]]:
        assert set(value) == {"median", "min", "max", "iqr", "n"}
        assert value["n"] == repetitions
        assert 0 <= value["min"] <= value["median"] <= value["max"]
    parts = sum(
        stages[name]["median"] for name in ("tower", "signals", "projector", "outer", "prefill") if stages[name]
    )
    assert 0.2 * stages["time_to_first_token"]["min"] < parts <= 1.3 * stages["time_to_first_token"]["max"]
    assert stages["inner"] is None or stages["inner"]["max"] < stages["prefill"]["max"]
    assert row["decode"] == {"eager": stages["time_per_output_token"], "static": None, "graphs": None}
    assert set(row["against_vanilla"]) == {
        "time_to_first_token", "time_per_output_token", "tokens_per_second", "overhead", "peak_memory",
    }  # fmt: skip
    assert (row["method"] is None) == (row["against_vanilla"]["overhead"] == 0)


def test_a_video_file_is_decoded_and_timed(capsys) -> None:
    from eval.instruments.clips import default_clip  # noqa: PLC0415

    file = str(default_clip())
    result = run(capsys, "--configs", CONFIGS[1], "--clip", file, "--repetitions", "1", "--new-tokens", "1")
    (row,) = result["rows"]
    assert row["clip"] == "bigbuckbunny.mp4"
    assert row["stages_ms"]["video"]["n"] == 1
    assert row["stages_ms"]["time_per_output_token"] is row["tokens_per_second"] is row["decode"]["eager"] is None


def test_other_ways_of_decoding_fill_their_places(capsys) -> None:
    result = run(capsys, "--configs", CONFIGS[0], "--repetitions", "2", "--new-tokens", "3", "--decoding", "static")
    decode = result["rows"][0]["decode"]
    assert decode["static"]["n"] == decode["eager"]["n"] == 2
    assert decode["static"]["min"] > 0
    assert decode["graphs"] is None


def test_every_configuration_keeps_its_own_tensors_for_decoding(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    made: list[Any] = []
    monkeypatch.setattr(StaticDecoder, "__init__", noted(made, StaticDecoder.__init__))
    run(capsys, "--configs", *CONFIGS[:3], "--repetitions", "2", "--new-tokens", "3", "--decoding", "static")
    assert len(made) == 3


def test_without_vanilla_there_is_nothing_to_compare_with(capsys) -> None:
    result = run(capsys, "--configs", CONFIGS[3], "--repetitions", "1", "--new-tokens", "2")
    assert result["rows"][0]["against_vanilla"] is None


def test_neither_video_readers_nor_the_harness_are_imported() -> None:
    blocked = ("decord", "av", "lmms_eval", "matplotlib", "skvideo")
    code = (
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        "from eval.efficiency.latency.__main__ import main\n"
        f"main({[*SMALL, '--configs', CONFIGS[1], CONFIGS[0], '--repetitions', '1', '--new-tokens', '2']})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])["rows"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configs", CONFIGS[1], "--frames", "0"], "--frames = 0 is out of range"),
        (["--configs", CONFIGS[1], "--frames", "99999999"], "--frames 99999999"),
        (["--configs", CONFIGS[1], "--repetitions", "0"], "--repetitions = 0 is out of range"),
        (["--configs", CONFIGS[1], "--new-tokens", "-1"], "--new-tokens = -1 is out of range"),
        (["--configs", CONFIGS[1], "--redundancy", "1.5"], "--redundancy 1.5"),
        (["--configs", CONFIGS[1], "--redundancy", "0.5", "0.5"], "2 clips are called"),
        (["--configs", CONFIGS[1], "--clip", "no/such.mp4"], "no/such.mp4"),
        (["--configs", "no.yaml"], "no.yaml"),
        (["--configs", CONFIGS[1], "configs/llava_onevision_7b/vanilla.yaml"], "both called vanilla"),
        (["--configs", "configs/llava_onevision_7b/holitom_r10.yaml"], "merge_layer = 18"),
        (["--configs", CONFIGS[1], "--dtype", "float16"], "--dtype float16"),
        (["--configs", CONFIGS[1], "--device", "tpu"], "--device"),
        (["--configs", CONFIGS[1], "--decoding", "graphs"], "--decoding graphs"),
        (["--configs", CONFIGS[1], "--geometry", "13b"], "--geometry"),
        (["--configs", CONFIGS[1], "--checkpoint", "checkpoints/tiny"], "name the checkpoint's own geometry"),
        ([], "--configs"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys) -> None:
    assert message in refused(capsys, *arguments)


def test_a_method_that_compresses_nothing_fails(tmp_path: Path, capsys) -> None:
    text = Path(CONFIGS[3]).read_text()
    text = re.sub(r"retain_ratio: .*", "retain_ratio: 1.0", text)
    (tmp_path / "all.yaml").write_text(text)
    assert "all compressed nothing: 784 of 784" in refused(capsys, "--configs", str(tmp_path / "all.yaml"))


def test_a_checkpoint_takes_the_place_of_random_weights(tmp_path: Path, capsys) -> None:
    folder = str(make_random_checkpoint(tmp_path, layers=8))
    result = run(capsys, "--configs", CONFIGS[1], "--checkpoint", folder, "--repetitions", "1", "--new-tokens", "2")
    assert result["checkpoint"] == folder
    assert result["random_weights"] is False


# The clock.


def test_stages_are_told_apart_where_they_are_nested() -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.stage("whole"):
        time.sleep(0.02)
        for _ in range(2):
            with clock.stage("part"):
                time.sleep(0.03)
    spent = clock.milliseconds()
    assert set(spent) == {(None, "whole"), ("whole", "part")}
    assert 20 <= spent[None, "whole"] < 55  # its own time: not the 60 ms inside
    assert 60 <= spent["whole", "part"] < 120


def test_only_the_hooks_of_others_are_timed_and_all_are_put_back() -> None:
    module, clock, seen = nn.Sequential(nn.Identity()), StageClock(torch.device("cpu")), []
    module[0].register_forward_pre_hook(lambda *_: seen.append("pre") or time.sleep(0.02))
    passing = module[0].register_forward_hook(lambda *_: seen.append("post"))
    before = dict(module[0]._forward_pre_hooks)
    with clock.module_timed(module, lambda: "module"), clock.hooks_timed(module, "hooks"):
        module(torch.ones(1))
        passing.remove()
    spent = clock.milliseconds()
    assert seen == ["pre", "post"]
    assert 20 <= spent["module", "hooks"] < 80
    assert spent[None, "module"] < 15
    assert dict(module[0]._forward_pre_hooks) == before
    assert not module[0]._forward_hooks
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


@pytest.mark.parametrize("compressor", [None, HolitomConfig(OuterConfig(), InnerConfig(merge_layer=5))])
def test_a_run_leaves_nothing_behind(model: LlavaQwenForCausalLM, prompt, compressor: Any) -> None:
    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model(prompt.ids, images=[prompt.pixels], modalities=["video"], logits_to_keep=1).logits

    before = logits()
    built = compressor.build() if compressor else None
    run_once(model, prompt, built, 2, memory=True)
    assert model.visual_compressor is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert built is None or not {"compress_video", "recording"} & set(vars(built))
    assert torch.equal(logits(), before)


@pytest.mark.parametrize(
    ("compressor", "slow", "stage"),
    [
        (UniformConfig(retain_ratio=0.1), "outer", "outer"),
        (FastvConfig(), "inner", "inner"),
        (HolitomConfig(OuterConfig(), InnerConfig(merge_layer=5)), "signals", "signals"),
    ],
)
def test_time_lands_in_the_stage_where_it_is_spent(
    model: LlavaQwenForCausalLM, prompt, monkeypatch: pytest.MonkeyPatch, compressor: Any, slow: str, stage: str
) -> None:
    built = compressor.build()
    delay = 0.3

    def late(work):
        def run(*arguments, **named):
            time.sleep(delay)
            return work(*arguments, **named)

        return run

    if slow == "outer":
        built.outer = SlowOuter(built.outer, delay)
    elif slow == "inner":
        built.inner.rules = replace(built.inner.rules, reduce=late(built.inner.rules.reduce))
    else:
        from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder  # noqa: PLC0415

        monkeypatch.setattr(ReceivedAttentionRecorder, "_read", late(ReceivedAttentionRecorder._read))
    usual = run_once(model, prompt, compressor.build(), 1) if slow != "signals" else None
    found = run_once(model, prompt, built, 1)
    assert found.stages_ms[stage] >= 1e3 * delay
    assert found.first_token_ms >= 1e3 * delay
    assert stage != "inner" or found.stages_ms["prefill"] >= 1e3 * delay  # which holds it
    others = [name for name in found.stages_ms if name not in (stage, "prefill")]
    assert all(found.stages_ms[name] < 1e3 * delay for name in others)
    if usual is not None:
        assert usual.stages_ms[stage] < 1e3 * delay


def test_later_tokens_are_in_no_stage(model: LlavaQwenForCausalLM, prompt) -> None:
    compressor = HolitomConfig(OuterConfig(), InnerConfig(merge_layer=5)).build()
    timing = run_once(model, prompt, compressor, 40)
    parts = sum(ms for name, ms in timing.stages_ms.items() if name != "inner")
    assert parts <= timing.first_token_ms
    assert 39 * (timing.per_token_ms or 0) > 0.2 * timing.first_token_ms  # they would show


def test_what_a_method_does_in_later_steps_is_not_its_share_of_the_prefill() -> None:
    spent = {(None, "prefill"): 10.0, ("prefill", "inner"): 2.0, (None, "step"): 90.0, ("step", "inner"): 50.0}
    assert _by_stage(spent) == {"prefill": 12.0, "inner": 2.0}
    del spent["prefill", "inner"]
    assert _by_stage(spent) == {"prefill": 10.0}


def test_ratios_above_one_mean_better() -> None:
    def row(first: float, each: float, peak: float, own: float | None) -> dict[str, Any]:
        times = {
            "time_to_first_token": first,
            "time_per_output_token": each,
            "signals": own,
            "outer": own,
            "inner": own,
        }
        stages = {name: None if ms is None else spread([ms]) for name, ms in times.items()}
        return {"stages_ms": stages, "tokens_per_second": spread([1e3 / each]), "peak_memory_mb": peak}

    found = against(row(50.0, 10.0, 80.0, 2.0), row(100.0, 12.0, 100.0, None))
    assert found == {
        "time_to_first_token": 2.0, "time_per_output_token": 1.2, "tokens_per_second": 1.2, "overhead": 0.06,
        "peak_memory": 1.25,
    }  # fmt: skip


def test_a_spread_says_how_values_lie() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "min": 1.0, "max": 5.0, "iqr": 2.0, "n": 5}
    assert spread([2.0]) == {"median": 2.0, "min": 2.0, "max": 2.0, "iqr": 0.0, "n": 1}


def test_the_state_of_the_device_is_read_where_its_tool_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool = tmp_path / "nvidia-smi"
    for script, wanted in (
        ("echo 580.1, 345, 1980, 3201, 75.1, 700.0, 30", "1980"),
        ("echo 580.1, 3", None),
        ("exit 9", None),
    ):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        state = device_state()
        assert (None if state is None else state["max_sm_mhz"]) == wanted


class SlowOuter:
    """An outer stage that takes its time."""

    def __init__(self, outer: Any, delay: float) -> None:
        self.outer, self.delay = outer, delay
        self.signals, self.keeps_positions, self.most_kept = outer.signals, outer.keeps_positions, outer.most_kept

    def __call__(self, video: Any) -> Any:
        time.sleep(self.delay)
        return self.outer(video)


# Clips and weights.


@pytest.mark.parametrize("redundancy", [0.0, 0.25, 0.5, 1.0])
def test_a_drawn_clip_stands_still_as_much_as_it_says(redundancy: float) -> None:
    frames = draw_clip(10, redundancy).frames.astype(int)
    assert frames.shape == (10, 540, 540, 3)
    change = abs(frames[1:] - frames[:-1]).max(-1)
    still = (change[:7].max(0) <= 6).mean()  # within the first scene of 8 frames
    assert still == pytest.approx(redundancy, abs=0.01)
    assert (change[7] <= 6).mean() < 0.05  # the cut
    assert (draw_clip(10, redundancy).frames == frames).all()


def test_random_weights_keep_the_redundancy_of_the_pixels(capsys) -> None:
    result = run(
        capsys, "--configs", CONFIGS[1], "--redundancy", "0", "0.5", "1", "--repetitions", "1", "--new-tokens", "1"
    )
    none, half, whole = (clip["features_alike"] for clip in result["clips"])
    assert none < 0.05
    assert 0.25 < half < 0.6  # pooling blurs the borders of what moves
    assert whole > 0.99


def test_a_random_model_is_a_model_as_its_class_builds_it(model: LlavaQwenForCausalLM, prompt) -> None:
    # buffers and tied weights are made apart from the parameters: a wrong one would only show in the output
    usual = LlavaQwenForCausalLM(geometry_config("tiny")).eval()
    usual.load_state_dict(model.state_dict())
    arguments = {"images": [prompt.pixels], "modalities": ["video"], "logits_to_keep": 1}
    with torch.no_grad():
        assert torch.equal(model(prompt.ids, **arguments).logits, usual(prompt.ids, **arguments).logits)
    half = random_model("tiny", "cpu", torch.bfloat16)
    assert half.model.rotary_emb.inv_freq.dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_weights_that_are_shared_stay_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GEOMETRIES, "tied", {**GEOMETRIES["tiny"], "tie_word_embeddings": True})
    tied = random_model("tied", "cpu", torch.float32)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    made: list[Any] = []
    monkeypatch.setattr(torch, "empty_like", noted(made, torch.empty_like))
    again = random_model("tied", "cpu", torch.float32)
    assert sum(like.shape == tied.lm_head.weight.shape for like, *_ in made) == 1  # and never twice in memory
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_random_weights_depend_on_the_seed_alone(model: LlavaQwenForCausalLM) -> None:
    again, other = random_model("tiny", "cpu", torch.float32), random_model("tiny", "cpu", torch.float32, seed=1)
    weights = dict(model.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)
    layers = model.model.layers
    assert not torch.equal(layers[0].mlp.gate_proj.weight, layers[1].mlp.gate_proj.weight)


@pytest.mark.parametrize("name", ["llava-onevision-0.5b", "llava-onevision-7b", "llava-video-7b"])
def test_geometries_are_those_of_the_published_files(name: str) -> None:
    from tests.llava.published_layouts import QWEN2_05B, QWEN2_7B  # noqa: PLC0415

    sizes, config = QWEN2_05B if "0.5b" in name else QWEN2_7B, geometry_config(name)
    found = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads,
             config.num_key_value_heads, config.vocab_size, config.tie_word_embeddings)  # fmt: skip
    assert found == (sizes.width, sizes.inner, sizes.layers, sizes.heads, sizes.kv_heads, sizes.vocabulary, sizes.tied)
    assert (config.mm_newline_position == "grid") == ("video" in name)
    empty = random_model(name, "meta", torch.bfloat16)
    assert len(empty.get_vision_tower().vision_tower.encoder.layers) == 26
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert name in GEOMETRIES


# The script for a GPU.


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 3, "torch finds no CUDA device here"),
        (["kernels"], 3, "torch finds no CUDA device here"),
        (["speed"], 2, "there is no part speed"),
        (["kernels", "bench"], 2, "name one part"),
        (["--results"], 2, "--results names no folder"),
    ],
)
def test_the_gpu_script_says_what_is_wrong(arguments: list[str], status: int, message: str) -> None:
    environment = {**os.environ, "NO_INSTALL": "1", "PYTHON": sys.executable}
    command = ["bash", "scripts/gpu_check.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == status
    assert message in done.stderr


def test_the_gpu_script_names_the_packages_that_are_missing(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    environment = {**os.environ, "NO_INSTALL": "1", "PYTHON": str(bare)}
    command = ["bash", "scripts/gpu_check.sh", "--dry-run", "bench"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert f"{bare} lacks torch transformers" in done.stderr
    assert done.stderr.count("\n") == 1
