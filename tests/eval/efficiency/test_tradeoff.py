"""Accuracy against real FLOPs: rows, FLOPs of one answer by hand, paired differences, and the figure."""

import json
from dataclasses import replace

import pytest
import torch

from eval.efficiency.flops.sizes import ModelSizes
from eval.efficiency.tradeoff import main, method_of, method_runs, prefill_flops, table
from eval.instruments.kinds import stamped
from eval.report.figures import tradeoff as figure
from eval.synthetic.answers.evaluate import Answer, Encoded, SharedVideo
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import OuterConfig
from holitom.methods.holitom.tower_config import TowerConfig
from llava.model.visual_inputs import VisualEncoder
from tests.tiny_models import video

SIZES = ModelSizes(
    "made", frames=4, side=8, patch=2, patches=16, tower_dim=6, tower_inner=10, tower_layers=2, tower_heads=1,
    tokens_per_frame=4, newline_mode="one_token", projector_layers=2, dim=8, inner=12, layers=2, heads=2, key_heads=1,
    head_dim=4, vocabulary=20,
)  # fmt: skip


def answers(rights: str, layers: list[int], tower: list[int]) -> list[Answer]:
    return [
        Answer(
            f"q{number}", ("shape", "color")[number % 2], f"{number // 3}", "A", right == "1", 16, layers[0],
            layers[-1], 1e9, 0.1, text=5, layers=layers, tower=tower,
        )
        for number, right in enumerate(rights)
    ]  # fmt: skip


def test_rows_and_those_at_five_percent() -> None:
    runs = method_runs((10, 5))
    assert {"vanilla", "fastv", "pdrop", "holitom_r5", "holitom_tower_r5", "flashvid_r5", "earlytom_r10"} <= set(runs)
    assert not any(name.endswith(("_r25", "_r20", "_r15")) for name in runs)
    assert runs["holitom_tower_r5"].compressor.outer.retain_ratio == 0.05
    assert runs["holitom_tower_r5"].compressor.tower == runs["holitom_tower_r10"].compressor.tower
    assert runs["random_r5"].compressor.retain_ratio == 0.05
    assert (runs["visionzip_r10"].compressor.tokens_per_frame, runs["visionzip_r5"].compressor.tokens_per_frame) == (
        7,
        4,
    )
    assert method_of("holitom_tower_r10,tower.layers=_1_") == ("holitom_tower", 10)
    assert method_of("fastv") == ("fastv", 100)


def test_flops_of_one_answer_by_hand() -> None:
    (one,) = answers("1", [10, 3], [4, 2])
    found = prefill_flops(SIZES, one)
    layer = 4 * 2 * 16 * 6**2 + 4 * 16**2 * 6 + 4 * 16 * 6 * 10
    embedding = 4 * 2 * 16 * 3 * 2**2 * 6
    projector = 2 * 16 * 2 * (6 * 8 + 8 * 8)  # of the two frames that leave the tower
    assert found["tower"] == embedding + 6 * layer + projector
    llm = 2 * 8 * 20
    for tokens in (10 + 5 + 1, 3 + 5 + 1):
        llm += 2 * tokens * 8 * (2 * 8 + 2 * 4) + 4 * (tokens * (tokens + 1) // 2) * 8 + 6 * tokens * 8 * 12
    assert found["llm"] == llm


def test_differences_are_paired_with_holitom_at_the_same_share() -> None:
    full, holitom = answers("111111", [16, 16], [4, 4]), answers("110110", [4, 2], [4, 4])
    tower = answers("110111", [4, 2], [4, 1])
    rows = table(SIZES, {"vanilla": full, "holitom_r10": holitom, "holitom_tower_r10": tower, "random_r5": holitom})
    assert rows["vanilla"]["prefill_share"] == 1
    assert rows["holitom_tower_r10"]["tower_share"] == pytest.approx(5 / 8)
    assert rows["holitom_tower_r10"]["prefill_share"] < rows["holitom_r10"]["prefill_share"] < 1
    assert rows["holitom_tower_r10"]["against_holitom"]["difference"] == pytest.approx(1 / 6)
    assert rows["holitom_tower_r10"]["difference"] == pytest.approx(-1 / 6)
    assert not any("against_holitom" in rows[name] for name in ("vanilla", "holitom_r10", "random_r5"))


def test_the_figure(tmp_path, capsys) -> None:
    full = answers("111111", [16, 16], [4, 4])
    rows = table(SIZES, {"vanilla": full, "holitom_r10": answers("110110", [4, 2], [4, 4])})
    record = {"result": {"notice": "Made up.", "questions": 6, "by_frames": {"4": rows, "8": rows}}}
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps(stamped("tradeoff", record)))
    figure.main([str(path), "-o", str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    del record["result"]["by_frames"]["4"]["vanilla"]["score"]
    path.write_text(json.dumps(stamped("tradeoff", record)))
    with pytest.raises(SystemExit):
        figure.main([str(path), "-o", str(tmp_path / "other.png")])
    assert not (tmp_path / "other.png").exists()


def test_a_limit_of_no_clips_is_refused(tmp_path, capsys) -> None:
    for option in ("--limit", "--workers", "--frames"):
        with pytest.raises(SystemExit) as error:
            main(["methods", "--data", str(tmp_path), option, "0"])
        assert error.value.code == 2
        assert f"{option} = " in capsys.readouterr().err


def test_frames_that_merge_in_the_tower_are_encoded_once_for_all_questions(model) -> None:
    """And the tokens are those that the compressor gives when it encodes the video itself."""
    encoder, clip = VisualEncoder(model.model, model.config, None), video(3)
    calls = []

    def encode() -> torch.Tensor:
        calls.append(1)
        return encoder.encode_frames(clip)

    settings = HolitomConfig(OuterConfig(0.2), None, TowerConfig([0], static_share=0.5))
    with torch.inference_mode(), settings.build().applied(model) as compressor:
        want = compressor.compress_video(lambda: encoder.encode_frames(clip), encoder.pool, "one_token")
        shared = SharedVideo(compressor, Encoded(clip, torch.zeros(3, 196, 1), {}))
        for _ in range(2):
            shared.start_prompt()
            kept = shared.compress_video(encode, encoder.pool, "one_token")
            assert torch.equal(kept.features, want.features)
            assert torch.equal(kept.index, want.index)
            assert compressor.record.frames_per_tower_layer(2) == [3, 1]
    assert len(calls) == 1
    assert replace(settings, tower=None).build().tower is None
