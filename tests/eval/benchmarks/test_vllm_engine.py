"""Runs with ``--engine vllm``: result files are those of the runtime, and what cannot be run so is refused."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eval.benchmarks.lmms import vllm_engine
from eval.benchmarks.lmms.vllm_engine import EngineGenerate, check_engine, sampling_settings
from holitom.serving import plugin
from holitom.settings import load_config
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.eval.benchmarks.lmms_runs import FRAMES, VANILLA, command, run_here, write_config
from tests.holitom.serving.serving_cases import small_checkpoint
from tests.tiny_models import prompt, video

WITHOUT_INNER: dict[str, Any] = {
    "model": {"num_frames": FRAMES},
    "compressor": {"method": "holitom", "outer": {"retain_ratio": 0.2}, "inner": None},
}
_OF_THE_ENGINE = {"engine", "engine_args"}


class DecoderEngine:
    """Answers prompts of embeddings as ``vllm.LLM`` does, with transformers' generation on the same checkpoint."""

    def __init__(self, checkpoint: Path, dtype: str, **arguments: Any) -> None:
        self.arguments, self.model = arguments, load_pretrained_model(checkpoint, torch_dtype=dtype)[1]
        self.asked: list[dict[str, Any]] = []

    def generate(self, prompts: list[dict[str, Any]], params: dict[str, Any], use_tqdm: bool) -> list[Any]:
        outputs = []
        for one in prompts:
            self.asked.append(params)
            tokens = self.model.generate(
                inputs_embeds=one["prompt_embeds"][None], max_new_tokens=params["max_tokens"], do_sample=False
            )
            outputs.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens[0].tolist()))]))
        return outputs


def both_runs(
    checkpoint: Path,
    data: Path,
    folder: Path,
    config: dict[str, Any],
    tasks: str,
    patch: pytest.MonkeyPatch,
    *more: str,
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Result and samples of the runtime and of vLLM."""
    path = write_config(folder / "config.yaml", config)
    runtime = command(path, checkpoint, data, tasks, folder / "runtime")
    engine = command(path, checkpoint, data, tasks, folder / "engine", "--engine", "vllm", *more)
    return [run_here(patch, runtime), run_here(patch, engine)]


def check_equal(runs: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> None:
    """All but times and the engine's own name."""
    (one, samples), (other, answered) = runs
    assert samples == answered
    assert len(samples) > 1
    differ = {key for key in one if one[key] != other[key]}
    assert differ <= {"times", "setup", "setup_hash"}, differ
    assert other["setup"].keys() - one["setup"].keys() == _OF_THE_ENGINE
    assert {key: other["setup"][key] for key in one["setup"]} == one["setup"]


def test_result_files_are_those_of_the_runtime(
    tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "require_vllm", lambda: None)
    monkeypatch.setattr(vllm_engine, "decoder_engine", DecoderEngine)
    monkeypatch.setattr(vllm_engine, "sampling_params", sampling_settings)
    monkeypatch.setattr(vllm_engine, "_version", lambda package: "0")
    check_equal(both_runs(tiny, benchmarks, tmp_path, WITHOUT_INNER, "egoschema_subset", monkeypatch))


def test_vllm_answers_as_the_runtime(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed: bash scripts/vllm_check.sh runs this test")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = small_checkpoint(tmp_path / "small")
    settings = ("--engine-args", "enforce_eager=true", "--engine-args", "max_model_len=4096")
    tasks = "mvbench,egoschema_subset,longvideobench_val_v,videomme"
    check_equal(both_runs(checkpoint, benchmarks, tmp_path, WITHOUT_INNER, tasks, monkeypatch, *settings))


def test_rows_of_a_batch_are_asked_without_their_padding(tiny: Path) -> None:
    model = load_pretrained_model(tiny, torch_dtype="float32")[1]
    lengths = []
    answers = [(5, 6, 7), (8,)]

    def generate(prompts: list[dict[str, Any]], params: Any, use_tqdm: bool) -> list[Any]:
        lengths.extend(len(one["prompt_embeds"]) for one in prompts)
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens)]) for tokens in answers]

    ids = torch.nn.utils.rnn.pad_sequence(
        [prompt(4, "video", 3)[0], prompt(2, "video", 1)[0]], batch_first=True, padding_value=256
    )
    engine = EngineGenerate(model, SimpleNamespace(generate=generate))
    before, vllm_engine.sampling_params = vllm_engine.sampling_params, sampling_settings
    try:
        made = engine(ids, ids != 256, [video(1), video(2)], modalities=["video"], max_new_tokens=3, pad_token_id=256)
    finally:
        vllm_engine.sampling_params = before
    assert lengths == [4 + 197 + 3, 2 + 393 + 1]
    assert made.tolist() == [[5, 6, 7], [8, 256, 256]]


def test_generation_options() -> None:
    greedy = {"max_tokens": 7, "temperature": 0.0, "detokenize": False}
    stock = {"use_cache": True, "pad_token_id": 3, "stopping_criteria": [], "num_beams": 1, "max_new_tokens": 7}
    assert sampling_settings({**stock, "do_sample": False, "temperature": 0.7}) == greedy
    sampled = sampling_settings({**stock, "do_sample": True, "temperature": 0.7, "top_p": 0.9})
    assert sampled == {**greedy, "temperature": 0.7, "top_p": 0.9}
    for wrong in ({"num_beams": 2}, {"max_new_tokens": None}, {"repetition_penalty": 1.1}):
        with pytest.raises(InputError, match="not supported on vLLM"):
            sampling_settings({**stock, **wrong})


def test_what_an_engine_cannot_run_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    row = load_config("tiny/holitom_without_inner_r15")
    with pytest.raises(InputError, match="engine = 'sglang' is unknown"):
        check_engine("sglang", None, row)
    with pytest.raises(InputError, match="are of vLLM"):
        check_engine("runtime", {"max_model_len": 9}, row)
    with pytest.raises(InputError, match="use holitom_without_inner_r15"):
        check_engine("vllm", None, load_config("tiny/holitom_r15"))
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs vllm"):
        check_engine("vllm", None, row)
    check_engine("runtime", {}, load_config("tiny/holitom_r15"))


def test_the_command_line_refuses_as_well(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path / "config.yaml", VANILLA)
    arguments = command(path, tiny, None, "videomme", tmp_path / "out", "--engine-args", "max_model_len=9")
    with pytest.raises(InputError, match="are of vLLM"):
        run_here(monkeypatch, arguments)
    with pytest.raises(InputError, match="--engine vllm runs in one process"):
        run_here(monkeypatch, [*arguments[:-2], "--engine", "vllm", "--num-processes", "2"])
    with pytest.raises(InputError, match="has it elsewhere"):
        run_here(monkeypatch, [*arguments[:-2], "--model-args", "engine=vllm"])
