"""The demo without arguments: a rendered clip with its true answers, the real clip, the quick benchmark."""

import json
from functools import partial
from pathlib import Path

import pytest

from eval.demo import __main__ as demo
from eval.demo import tiny as demo_tiny
from eval.synthetic.answers.scores import NOTICE
from eval.synthetic.world.dataset import load_questions, make_split
from eval.synthetic.world.questions import SCORED
from tests.eval.synthetic.conftest import untrained  # noqa: F401 - a fixture

QUICK = ["--frames", "4", "--repetitions", "1", "--max-new-tokens", "1"]


@pytest.fixture
def small_tour(monkeypatch, tmp_path, untrained: Path) -> Path:  # noqa: F811
    """An untrained model, few questions, and one share: the tour in seconds. Returns the folder of the data."""
    data = tmp_path / "data"
    monkeypatch.setenv("SYNTHVID_DATA", str(data))
    monkeypatch.setattr(demo, "TINY", untrained)
    monkeypatch.setattr(demo_tiny, "TINY", untrained)
    monkeypatch.setattr(demo_tiny, "_SHARES", (15,))
    monkeypatch.setattr(demo_tiny, "make_split", partial(make_split, questions=12))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    return data


def test_the_tour_shows_all_three_parts(capsys, tmp_path, small_tour: Path) -> None:
    demo.main([*QUICK, "--output", str(tmp_path / "out"), "--retain-ratio", "0.2"])
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert NOTICE in out
    assert "outside the tiny model's world; its time means something, tokens and answer do not" in out
    assert f"{result['static_share']:.1%} of the tokens stood still over their segment; the tiny tower knows" in out
    assert 0 <= result["static_share"] <= 1
    rendered = result["rendered"]
    items = [item for item in load_questions(small_tour, "guard") if item.clip.name == Path(rendered["video"]).name]
    assert [(entry["question"], "ABCD".index(entry["true"])) for entry in rendered["questions"]] == [
        (item.question.text, item.question.answer) for item in items
    ]
    assert all(f"{entry['true']}. {entry['options'][entry['true']]}" in out for entry in rendered["questions"])
    names = ["all tokens", "HoliTom, outer stage", "HoliTom"]
    assert all(list(entry["answers"]) == names for entry in rendered["questions"])
    assert rendered["tokens"]["all tokens"] == [4 * 64] * 2
    assert rendered["tokens"]["HoliTom"][0] == rendered["tokens"]["HoliTom, outer stage"][0] < 0.25 * 4 * 64
    assert [row["name"] for row in result["rows"]] == names
    assert result["rows"][0]["tokens"] == [4 * 64] * 3
    assert result["checkpoint"] == "checkpoints/tiny, learned on rendered clips"
    rows = result["benchmark"]["rows"]
    assert list(rows) == ["vanilla", *(f"{name}_r15" for name in demo_tiny._METHODS)]
    assert all(row["questions"] == len(SCORED) for row in rows.values())  # one question of each family was asked
    assert rows["vanilla"]["difference"] == 0
    assert rows["vanilla"]["outer"] == 8 * 64
    assert rows["uniform_r15"]["outer"] == 8 * 10
    assert all(row["milliseconds"] > 0 for row in rows.values())
    assert result["claim"] == NOTICE


@pytest.mark.parametrize("own", [["--video", "CLIP"], ["--question", "What now?"]])
def test_an_own_video_or_question_is_answered_alone(capsys, tmp_path, small_tour: Path, own: list[str]) -> None:
    own = [str(demo.default_clip()) if word == "CLIP" else word for word in own]
    demo.main([*QUICK, "--output", str(tmp_path / "out"), *own])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rows"][0]["tokens"] == [4 * 64] * 3
    assert "benchmark" not in result
    assert not small_tour.exists()


def test_sixteen_frames_unless_said_otherwise(capsys, tmp_path, small_tour: Path) -> None:
    demo.main(["--repetitions", "1", "--max-new-tokens", "1", "--output", str(tmp_path / "out"), "--question", "What?"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["frames"] == 16


def test_wrong_settings_end_before_anything_is_rendered(capsys, tmp_path, small_tour: Path) -> None:
    with pytest.raises(SystemExit) as end:
        demo.main([*QUICK, "--output", str(tmp_path / "out"), "--retain-ratio", "2"])
    assert end.value.code == 2
    assert "retain_ratio = 2.0" in capsys.readouterr().err
    assert not small_tour.exists()


def test_without_the_tiny_model_a_random_one_takes_its_place_and_says_so(
    capsys, monkeypatch, tmp_path, small_tour: Path
) -> None:
    monkeypatch.setattr(demo, "TINY", tmp_path / "nowhere")
    demo.main([*QUICK, "--output", str(tmp_path / "out")])
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert "nowhere is not there" in " ".join(out.split())
    assert result["rows"][0]["tokens"] == [4 * 196] * 3
    assert "benchmark" not in result
