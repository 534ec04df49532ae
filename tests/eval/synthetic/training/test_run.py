"""Stages: the same from one run as from two, gates, order, export."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval.synthetic.training import run as run_module
from eval.synthetic.training import validation
from eval.synthetic.training.export import export
from eval.synthetic.training.features import encode, kept_features
from eval.synthetic.training.model import FIRST_LAYERS, LAYERS, grow, match_anew, new_model
from eval.synthetic.training.optimizers import trapezoid
from eval.synthetic.training.run import StageRun, main
from eval.synthetic.training.stages import STAGES, Stage
from eval.synthetic.training.streams import StreamConfig, VideoQuestions
from eval.synthetic.training.vision import attention_loss, normalized
from llava.errors import InputError
from llava.model.builder import load_pretrained_model

SMALL = StreamConfig(videos=2, questions=3)
TOWER = Stage("look", "tower", steps=3, rate=1e-3, seed=2, frames=2)  # of six layers, as the next
WORDS = Stage("talk", "language", steps=4, rate=1e-3, seed=1, stream=SMALL)
BOTH = Stage("see", "language", steps=2, rate=1e-3, seed=3, tower="look", language="talk", layers=LAYERS,
             stream=StreamConfig(videos=1, questions=2, pixels=True, tokens_per_frame=(64,)))  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small stages with stubbed validation."""
    monkeypatch.setattr(run_module, "STAGES", (TOWER, WORDS, BOTH))
    monkeypatch.setattr(run_module, "validate_tower", lambda model: {"shape": 0.5})
    monkeypatch.setattr(run_module, "validate_language", lambda *arguments: {"words.mean": 0.5})
    monkeypatch.setattr(run_module, "_LOG_EVERY", 1)


def weights(run: StageRun) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


@pytest.mark.parametrize("stage", [TOWER, WORDS])
def test_two_runs_equal_one(tmp_path: Path, stage: Stage) -> None:
    whole = StageRun(stage, tmp_path / "whole", 0, CPU)
    assert whole.train(0, float("inf"))
    for _ in range(stage.steps):  # a deadline in the past ends every call after one step
        broken = StageRun(stage, tmp_path / "broken", 0, CPU)
        finished = broken.train(0, 0.0)
    assert finished
    assert torch.equal(weights(whole), weights(broken))
    assert not torch.equal(weights(whole), weights(StageRun(stage, tmp_path / "new", 0, CPU)))


def test_seed_fixes_the_start(tmp_path: Path) -> None:
    first, second, other = (
        StageRun(WORDS, tmp_path / name, seed, CPU) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.usefixtures("short")
def test_all_stages_then_a_checkpoint_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "stages"
    with pytest.raises(SystemExit) as not_done:
        main([str(root), "--done"])
    assert not_done.value.code == 3
    main([str(root), "--workers", "0"])
    reached = json.loads(capsys.readouterr().out.splitlines()[-1])["stages"]
    assert list(reached) == ["look", "talk", "see"]
    lines = [json.loads(line) for line in (root / "talk" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    folder = export(root, tmp_path / "checkpoint", (TOWER, WORDS, BOTH))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
    assert "| talk | language | 4 | 0.001 |" in (folder / "README.md").read_text()
    tokenizer, model, processor, _ = load_pretrained_model(str(folder), None, "llava_qwen", torch_dtype="float32")
    last = StageRun(BOTH, root, 0, CPU)
    assert model.config.num_hidden_layers >= 6
    assert len(tokenizer) == model.config.vocab_size
    written = json.loads((folder / "config.json").read_text())
    assert written["dtype"] == "float16"
    assert (written["bos_token_id"], written["eos_token_id"]) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    assert json.loads((folder / "generation_config.json").read_text()) == ids
    assert "model.vision_tower.vision_tower.vision_model.post_layernorm.bias" in load_file(folder / "model.safetensors")
    for name, tensor in last.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor.half().float(), msg=name)
    pixels = torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8)
    prepared = processor.preprocess(pixels.numpy(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(prepared, normalized(pixels), atol=1e-5, rtol=0)
    tokens, received = encode(model, pixels)
    torch.testing.assert_close(received.sum(dim=1) * 4, torch.ones(2), atol=2e-2, rtol=0)  # means over 2 x 2 patches
    assert tokens.shape == (2, 64, 128)


@pytest.mark.usefixtures("short")
def test_missed_gate_ends_the_run_and_keeps_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gated = Stage("look", "tower", steps=1, rate=1e-3, seed=2, frames=1, gates={"shape": 0.9})
    monkeypatch.setattr(run_module, "STAGES", (gated, WORDS))
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--workers", "0"])
    assert stopped.value.code == 2
    assert "shape 0.500 < 0.9" in capsys.readouterr().err
    assert (tmp_path / "look" / "missed.json").exists()
    assert not (tmp_path / "look" / "done.json").exists()
    assert not (tmp_path / "talk").exists()
    with pytest.raises(InputError, match="needs stage talk, which is not done"):
        StageRun(BOTH, tmp_path, 0, CPU)
    with pytest.raises(InputError, match="not done"):
        export(tmp_path, tmp_path / "checkpoint", (TOWER,))


@pytest.mark.usefixtures("short")
def test_a_stage_goes_on_from_what_another_has_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "STAGES", (TOWER, WORDS))
    main([str(tmp_path), "--workers", "0"])
    learned, ids = StageRun(WORDS, tmp_path, 0, CPU), torch.arange(40)[None]
    same, deeper = (StageRun(replace(WORDS, name=name, language="talk", layers=layers), tmp_path, 1, CPU)
                    for name, layers in (("same", FIRST_LAYERS), ("deeper", LAYERS)))  # fmt: skip
    assert torch.equal(weights(same), weights(learned))
    expected, found = (run.model.eval()(ids).logits for run in (learned, deeper))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_validation_measures_families_and_similarities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_BATCHES", 1)
    monkeypatch.setattr(validation, "_VIDEOS", 2)
    model, _, prompts = new_model(tmp_path, 0, FIRST_LAYERS)
    reached = validation.validate_language(model, prompts, str(tmp_path), StreamConfig(videos=4))
    assert {"words.mean", "letters.mean"} < reached.keys()
    assert all(0 <= share <= 1 for share in reached.values())
    reached = validation.validate_tower(model)
    assert {"color", "shape", "scene", "recall", "within_shot_median", "across_cut_median"} < reached.keys()
    assert 0 < reached["recall"] < 1


def test_recipe_is_in_order_and_its_data_apart() -> None:
    names = [stage.name for stage in STAGES]
    for number, stage in enumerate(STAGES):
        assert {stage.tower, stage.language} - {None} <= set(names[:number])
        assert stage.gates
    assert len({(stage.kind, stage.seed) for stage in STAGES}) == len(STAGES)


def test_attention_loss_is_least_where_it_is_wanted() -> None:
    objects = torch.zeros(2, 256)
    objects[0, :20] = 1
    wanted = torch.full((2, 256), 1 / 256)
    wanted[0] = 0.15 / 256
    wanted[0, :20] += 0.85 / 20
    assert abs(float(attention_loss(wanted, objects))) < 1e-6
    even = torch.full((2, 256), 1 / 256)
    assert float(attention_loss(even, objects)) > 0.5


def test_deeper_model_computes_the_same_at_first(tmp_path: Path) -> None:
    shallow, _, _ = new_model(tmp_path, 0, FIRST_LAYERS)
    deep, _, _ = new_model(tmp_path, 1, LAYERS)
    deep.load_state_dict(grow(deep, shallow.state_dict()))
    ids = torch.arange(40)[None]
    before, after = (model.eval()(ids).logits for model in (shallow, deep))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert len(deep.get_model().layers) == LAYERS > FIRST_LAYERS


def test_matched_layers_search_for_equal_content(tmp_path: Path) -> None:
    model, _, _ = new_model(tmp_path, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    match_anew(model, (6,), 3)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"model.layers.6.self_attn.{kind}_proj.weight" for kind in "qk"}
    attention = model.get_model().layers[6].self_attn
    states = torch.nn.functional.normalize(torch.randn(30, 128)) * 128**0.5
    query = attention.q_proj(states).unflatten(-1, (4, 32)).mean(dim=1)
    key = attention.k_proj(states).unflatten(-1, (2, 32)).mean(dim=1)
    assert float(((query @ key.T).argmax(dim=1) == torch.arange(30)).float().mean()) > 0.9


def test_trapezoid() -> None:
    factor = trapezoid(100, 10, 0.3)
    assert [round(factor(step), 3) for step in (0, 9, 50, 70, 85, 99)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.033]
    flat = trapezoid(100, 10, 0.0)
    assert [flat(step) for step in (0, 9, 99, 100)] == [0.1, 1.0, 1.0, 1.0]  # asked for the step after the last one


def test_pixels_give_what_the_tower_says(tmp_path: Path) -> None:
    run = StageRun(Stage("x", "language", 1, 1e-3, 3, stream=BOTH.stream), tmp_path, 0, CPU)
    batch = next(iter(VideoQuestions(BOTH.stream, str(tmp_path / "tokenizer"), 3)))
    assert batch.pixels is not None
    tokens, _ = encode(run.model, batch.pixels[0])
    torch.testing.assert_close(kept_features(run.model, batch)[0], tokens.flatten(0, 1)[batch.kept[0]])
