"""The demo: a table, a picture and one line of JSON; every wrong argument ends in one line and status 2."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.demo.__main__ import main, prepare
from eval.instruments.clips import default_clip
from eval.instruments.models.random_checkpoint import make_random_checkpoint

QUICK = ["--frames", "4", "--repetitions", "1", "--max-new-tokens", "2"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    main([*QUICK, *arguments])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_default_clip(capsys, tmp_path, checkpoint: Path) -> None:
    result = run(capsys, "--checkpoint", str(checkpoint), "--output", str(tmp_path), "--retain-ratio", "0.2")
    full, outer, both = result["rows"]
    assert full["tokens"] == [4 * 196] * 3
    assert outer["tokens"][1] == outer["tokens"][2] < 0.25 * 4 * 196
    assert both["tokens"][1] == outer["tokens"][1]
    assert abs(both["tokens"][2] - both["tokens"][1] / 2) <= 1
    assert full["tflops"] > outer["tflops"] > both["tflops"] > 0
    assert all(row["seconds_to_first_token"] > 0 and row["peak_memory_mb"] >= 0 for row in result["rows"])
    assert result["segments"][0][0] == 0
    assert result["segments"][-1][1] == 3
    assert {"commit", "torch", "device", "config"} <= set(result)
    picture = np.asarray(Image.open(result["picture"]).convert("RGB"))
    assert picture.std() > 10


def test_markup_in_a_question_is_text(capsys, tmp_path) -> None:
    question = "[red]x[/blue] [bold]"
    main([*QUICK, "--output", str(tmp_path), "--question", question])
    out = capsys.readouterr().out
    assert question in out
    assert json.loads(out.splitlines()[-1])["question"] == question


def test_own_checkpoint_and_settings(capsys, tmp_path, checkpoint: Path) -> None:
    result = run(
        capsys,
        "--checkpoint",
        str(checkpoint),
        "--output",
        str(tmp_path),
        "--merge-layer",
        "2",
        "--merge-ratio",
        "0.25",
    )
    assert result["checkpoint"] == str(checkpoint)
    assert result["config"]["inner"]["merge_layer"] == 2
    tokens = result["rows"][2]["tokens"]
    assert abs(tokens[2] - 0.75 * tokens[1]) <= 1


@pytest.fixture(scope="module")
def video_checkpoint(tmp_path_factory) -> Path:
    return make_random_checkpoint(tmp_path_factory.mktemp("llava-video"), layout="llava-video")


def test_llava_video_checkpoint(capsys, tmp_path, video_checkpoint: Path) -> None:
    full, outer, both = run(capsys, "--checkpoint", str(video_checkpoint), "--output", str(tmp_path))["rows"]
    assert full["tokens"] == [4 * 169] * 3
    assert outer["tokens"][1] == both["tokens"][1] < 4 * 169
    assert both["tokens"][2] < both["tokens"][1]


def test_frames_and_time_instruction_come_from_the_checkpoint(monkeypatch, tmp_path, video_checkpoint: Path) -> None:
    """64 frames and the sentence about time for LLaVA-Video, 32 and no sentence for LLaVA-OneVision."""
    seen = []

    class Stop(Exception):
        pass

    def look(options, checkpoint, label):
        clip, question = prepare(options, checkpoint, label)
        seen.append((len(clip.indices), question.tokenizer.decode(question.ids[0, question.ids[0] >= 0])))
        raise Stop

    monkeypatch.setattr("eval.demo.__main__.prepare", look)
    onevision = make_random_checkpoint(tmp_path / "ov")
    for folder in (video_checkpoint, onevision):
        with pytest.raises(Stop):
            main(["--checkpoint", str(folder), "--output", str(tmp_path), "--question", "Why?"])
    (frames, text), (other_frames, other_text) = seen
    assert (frames, other_frames) == (64, 32)
    assert "The video lasts for" in text
    assert "64 frames are uniformly sampled" in text
    assert text.index("These frames are located at 0.00s,") < text.index("Why?")
    assert "The video lasts" not in other_text


def test_all_tokens_beyond_the_context_are_not_run_but_the_rest_is(capsys, tmp_path, checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | {"tokenizer_model_max_length": 600}
    for file in checkpoint.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = run(capsys, "--checkpoint", str(tmp_path), "--output", str(tmp_path / "out"))["rows"]
    assert rows[0]["answer"].startswith("not run")
    assert rows[0]["seconds_to_first_token"] is None
    assert rows[2]["seconds_to_first_token"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--retain-ratio", "0"], "retain_ratio = 0.0"),
        (["--retain-ratio", "-0.5"], "retain_ratio = -0.5"),
        (["--retain-ratio", "1.5"], "retain_ratio = 1.5"),
        (["--retain-ratio", "nan"], "retain_ratio = nan"),
        (["--similarity-threshold", "2"], "similarity_threshold = 2.0"),
        (["--merge-layer", "0"], "merge_layer = 0"),
        (["--merge-layer", "8"], "merge_layer = 8"),
        (["--merge-ratio", "1"], "merge_ratio = 1.0"),
        (["--frames", "0"], "num_frames"),
        (["--max-new-tokens", "0"], "--max-new-tokens = 0"),
        (["--repetitions", "0"], "--repetitions = 0"),
        (["--video", "/nowhere/clip.mp4"], "/nowhere/clip.mp4"),
        (["--video", "README.md"], "README.md"),
        (["--checkpoint", "/nowhere/checkpoint"], "/nowhere/checkpoint"),
        (["--checkpoint", "tests"], "config.json"),
        (["--attn-implementation", "flash_attention_2"], "flash-attn"),
        (["--question", "and <image> again"], "--question must not contain <image>"),
        (["--frames", "10000000"], "--frames 10000000 needs about"),
        (["--retain-ratio", "abc"], "invalid float value: 'abc'"),
        (["--attn-implementation", "bogus"], "'bogus'"),
        (["--output", "README.md"], "README.md"),
    ],
)
def test_wrong_arguments(capsys, tmp_path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*QUICK, "--output", str(tmp_path), *arguments])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert end.value.code == 2
    assert len(errors) == 1
    assert message in errors[0]


def test_unknown_arguments_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--retain_rate", "0.1"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --retain_rate 0.1; see --help\n"


def test_the_default_clip_is_a_file_of_an_installed_package() -> None:
    assert default_clip().stat().st_size > 1_000_000
