"""Frames merged inside the tower: recordings, both runtimes, passes, several videos, and nothing left behind."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from eval.claims.parity.newer_cases import merge_rule, recorded_targets, recorded_tower
from holitom.hooks.tower.frame_merging import FrameMerging
from holitom.hooks.tower.parts import TowerPlaces
from holitom.methods.earlytom import EarlyTomConfig, EarlyTomMerging
from holitom.methods.earlytom.frame_merging import MergeRule
from holitom.record.file import load_record
from holitom.record.saving import save_record
from llava.errors import InputError
from llava.model.vision_tower import SiglipVisionTower
from llava.model.visual_inputs import VisualEncoder
from tests.tiny_models import hook_count, video

GOLDENS = Path(__file__).parents[3] / "goldens_newer"
CASES = sorted(path for path in GOLDENS.glob("earlytom_tower_*.safetensors") if "weights" not in path.name)
SMALL = CASES[0]


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    return load_file(path), json.loads(path.with_suffix(".json").read_text())


def gates(tower: SiglipVisionTower) -> TowerPlaces:
    return TowerPlaces(list(tower.gates), [layer.self_attn for layer in tower.vision_tower.encoder.layers])


def layers(tower: SiglipVisionModel) -> TowerPlaces:
    return TowerPlaces(list(tower.encoder.layers), [layer.self_attn for layer in tower.encoder.layers])


def merging(facts: dict, places: TowerPlaces, **changes) -> FrameMerging:
    settings = {**facts["settings"], **changes}
    return FrameMerging(settings["merge_after_layers"], EarlyTomMerging(merge_rule(settings))).apply(places)


@torch.no_grad()
def run(tower: nn.Module, hook: FrameMerging, pixels: Tensor, videos: list[int] | None = None):
    with hook.recording(videos):
        states = tower(pixels)
    return states, hook.take()


def their_tower(tower: SiglipVisionTower) -> nn.Module:
    """transformers' own class with the same weights, run as it is."""
    config = SiglipVisionConfig(**tower.config.to_dict())
    theirs = SiglipVisionModel(config).eval()
    theirs.load_state_dict(tower.vision_tower.state_dict())
    return theirs


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("passes", [3, 64])
def test_recorded_tower(path: Path, passes: int) -> None:
    """Frames enter in passes or together: groups, states and received attention are those of the release."""
    data, facts = read(path)
    tower = recorded_tower(GOLDENS, facts["tower"])
    tower.frames_per_pass = passes
    states, (merges,) = run(tower, merging(facts, gates(tower)), data["pixel_values"].float())
    assert [list(target) for target in merges.targets] == recorded_targets(data, facts["T"])
    assert merges.frames_per_layer(8) == facts["frames_seen_by_layer"]
    assert sum(merges.frames_per_layer(8)) / (8 * facts["T"]) == pytest.approx(facts["tower_cost_share"])
    assert [list(group) for group in merges.groups] == data["final_groups"].tolist()
    atol = 1e-4 if facts["tower"] == "A" else 4e-3  # half precision
    torch.testing.assert_close(states, data["last_hidden"].float(), atol=atol, rtol=0)
    if "received_attention" in data:
        torch.testing.assert_close(merges.received_attention, data["received_attention"], atol=1e-5, rtol=0)
    means = states.mean(1)
    torch.testing.assert_close(
        tower(data["pixel_values"].float()).mean(1), data["uncompressed_frame_mean"], atol=1e-4, rtol=0
    )
    assert len(means) == facts["frames_after_each_merge"][-1]
    assert hook_count(tower) == 0


def test_transformers_tower_gives_the_same() -> None:
    data, facts = read(SMALL)
    pixels, tower = data["pixel_values"].float(), recorded_tower(GOLDENS, facts["tower"])
    theirs = their_tower(tower)
    own, (merges,) = run(tower, merging(facts, gates(tower)), pixels)
    captured: list[Tensor] = []
    with theirs.encoder.register_forward_hook(lambda module, args, output: captured.append(output.last_hidden_state)):
        _, (other,) = run(theirs, merging(facts, layers(theirs)), pixels, [len(pixels)])
    torch.testing.assert_close(captured[0], own, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.received_attention, merges.received_attention, atol=1e-6, rtol=0)
    assert (other.targets, other.groups) == (merges.targets, merges.groups)


def test_several_videos_in_one_call() -> None:
    """Each gets what it gets alone; no frame is merged over the border."""
    data, facts = read(SMALL)
    pixels, tower = data["pixel_values"].float(), recorded_tower(GOLDENS, facts["tower"])
    sizes = [11, 1, 8]
    together, merges = run(tower, merging(facts, gates(tower)), pixels, sizes)
    alone = [run(tower, merging(facts, gates(tower)), part) for part in pixels.split(sizes)]
    torch.testing.assert_close(together, torch.cat([states for states, _ in alone]), atol=1e-6, rtol=0)
    for one, (_, (other,)) in zip(merges, alone, strict=True):
        assert (one.frames, one.targets, one.groups) == (other.frames, other.targets, other.groups)
    assert merges[0].merged_frames < 11


def test_a_call_without_videos_is_left_alone() -> None:
    data, facts = read(SMALL)
    pixels, tower = data["pixel_values"].float(), recorded_tower(GOLDENS, facts["tower"])
    hook = merging(facts, gates(tower))
    states, merges = run(tower, hook, pixels, [])
    assert merges == []
    with torch.no_grad():
        assert torch.equal(states, tower(pixels))


def test_segments_of_one_frame_are_the_plain_tower() -> None:
    """Segments shorter than two frames: nothing merges, every frame is a group of its own."""
    data, facts = read(SMALL)
    pixels, tower = data["pixel_values"].float(), recorded_tower(GOLDENS, facts["tower"])
    states, (merges,) = run(tower, merging(facts, gates(tower), M=2), pixels)
    with torch.no_grad():
        torch.testing.assert_close(states, tower(pixels), atol=1e-6, rtol=0)
    assert merges.groups == [(frame, frame) for frame in range(len(pixels))]
    assert merges.frames_per_layer(8) == [len(pixels)] * 8
    assert merges.stand_ins == merges.representatives == list(range(len(pixels)))


def test_errors_and_an_interrupted_call() -> None:
    _, facts = read(SMALL)
    tower = recorded_tower(GOLDENS, facts["tower"])
    rules = EarlyTomMerging(MergeRule(0.5, 6))
    with pytest.raises(InputError, match=r"tower_layers = \[3, 7\] is out of range: the tower runs 8 layers"):
        FrameMerging([3, 7], rules).apply(gates(tower))
    with pytest.raises(RuntimeError, match="call apply"), FrameMerging([3], rules).recording():
        pass
    hook = FrameMerging([3], rules).apply(gates(tower))
    with pytest.raises(RuntimeError, match="applied already"):
        hook.apply(gates(tower))
    with pytest.raises(ZeroDivisionError), hook.recording():
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="run the vision tower"):
        hook.take()
    assert hook_count(tower) == 0
    hook.remove()


def test_merged_frames_show_in_the_record(model, tmp_path: Path) -> None:
    """A still clip: five frames become four, the lost one stands in no output row."""
    config = EarlyTomConfig(retain_ratio=0.25, similarity_threshold=0.5, tower_layers=[0], inner=None)
    encoder = VisualEncoder(model.model, model.config, None)
    clip = video(5)
    with config.build().applied(model) as compressor:
        for passes in (2, 16):
            model.model.vision_tower.frames_per_pass = passes
            compressor.start_prompt()
            kept = compressor.compress_video(lambda: encoder.encode_frames(clip), encoder.pool, "one_token")
            merges = kept.details.merges
            assert merges.frames == kept.details.frames == 5
            assert merges.merged_frames < 5
            lost = [frame for frame, target in enumerate(merges.targets[-1]) if target < 0]
            assert bool((kept.details.source_map()[lost] == -1).all())
            assert merges.frames_per_layer(2) == [5, merges.merged_frames]
            assert compressor.record.frames_per_tower_layer(2) == [5, merges.merged_frames]
            assert compressor.record.tokens_before == [5 * 196]
            save_record(compressor.record, tmp_path / "record.npz")
            (saved,) = load_record(tmp_path / "record.npz").videos
            assert saved.frame_targets.tolist() == [list(merges.targets[0])]
            assert saved.counts()["tower"] == [{"layer": 0, "frames": merges.merged_frames}]
            assert len(kept.index) <= 5 * 196 * 0.25 + 5
