"""The table of the tiny model: runs, answers kept on disk, scores, pages and figures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.instruments.kinds import stamped
from eval.instruments.significance import paired_difference
from eval.report.tables import tiny as table_pages
from eval.synthetic.answers import campaign, table
from eval.synthetic.answers.campaign import BLANK, Campaign, checkpoint_hash, compressor_key, run
from eval.synthetic.answers.evaluate import Answer
from eval.synthetic.answers.scores import NOTICE, scores, verdict
from eval.synthetic.training.model import LAYERS
from eval.synthetic.world.dataset import make_split
from holitom.methods.holitom.config import OuterConfig
from holitom.settings import load_config
from llava.errors import InputError


def answers(rights: str, outer: int = 10) -> list[Answer]:
    """One answer for each letter: questions of two families, three to a clip."""
    rows = []
    for number, right in enumerate(rights):
        family, clip = ("shape", "color")[number % 2], f"{number // 3}"
        rows.append(Answer(f"q{number}", family, clip, "A", right == "1", 64, outer, outer // 2, 1e9, 0.1 * number))
    return rows


def test_scores_are_means_of_families_beside_those_of_all_tokens():
    full, method = answers("111101111011"), answers("101101101001", outer=20)
    found = scores(method, full)
    a = [answer.right for answer in method if answer.family == "shape"]
    b = [answer.right for answer in method if answer.family == "color"]
    assert found["families"] == {"shape": sum(a) / len(a), "color": sum(b) / len(b)}
    assert found["score"] == pytest.approx((sum(a) / len(a) + sum(b) / len(b)) / 2)
    clips, families = [x.clip for x in full], [x.family for x in full]
    expected = paired_difference([x.right for x in method], [x.right for x in full], clips, families)
    assert (found["difference"], found["low"], found["high"]) == expected
    assert found["retention"] == pytest.approx(found["score"] / scores(full, full)["score"])
    assert (found["before"], found["outer"], found["inside"], found["gflops"]) == (64, 20, 10, 1)


def test_families_that_were_not_learned_do_not_count():
    """They are shown; the score stays that of the learned ones."""
    learned, extra = answers("101101"), answers("000000")
    unlearned = [replace(answer, id=f"x{answer.id}", family="scene") for answer in extra]
    found = scores([*learned, *unlearned], [*learned, *unlearned])
    assert found["score"] == scores(learned, learned)["score"]
    assert found["families"]["scene"] == 0


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.1, "no difference shown"),
        (0, 0.2, "no difference shown"),
        (math.nan, math.nan, "no difference shown"),
    ],
)
def test_a_difference_that_may_be_chance_is_none(low, high, word):
    assert verdict(low, high) == word


def test_runs_that_do_the_same_share_their_answers():
    named = load_config("configs/tiny/holitom_r15.yaml")
    point = load_config("configs/tiny/holitom_r25.yaml", ["outer.retain_ratio=0.15"])
    assert compressor_key(named) == compressor_key(point)
    assert compressor_key(named) != compressor_key(named, blank=True)
    assert compressor_key(named) != compressor_key(load_config("configs/tiny/holitom_r15.yaml", ["model.num_frames=4"]))


def test_every_file_is_a_row_and_every_ablation_has_its_points():
    runs = table.main_runs()
    assert set(runs) == {path.stem for path in Path("configs/tiny").glob("*.yaml")}
    assert list(runs)[:3] == ["vanilla", "fastv", "pdrop"]
    assert [config.model.num_frames for config in runs.values()] == [8] * len(runs)
    points, grids = table.ablation_runs()
    expected = "frames inner_layer inner_ratio mask merge_rule retain_ratio segmentation stages threshold tokens tower"
    assert sorted(grids) == expected.split()
    assert {name for grid in grids.values() for name in grid["points"]} == set(points)
    assert all(config.model.pretrained == "checkpoints/tiny" for config in points.values())


def test_layers_lie_where_the_paper_has_them():
    """Those of 28 layers at the same depth; FastV prunes behind its second layer in every model."""
    runs, scale = table.main_runs(), LAYERS / 28
    inner = {config.compressor.inner.merge_layer for name, config in runs.items() if name.startswith("holitom_r")}
    assert inner == {round(18 * scale)}
    assert runs["pdrop"].compressor.drop_layers == [max(1, round(layer * scale)) for layer in (2, 7, 14)]
    assert runs["fastv"].compressor.prune_layer == 2


def test_budgets_are_those_of_64_tokens_a_frame():
    runs = table.main_runs()
    for share in (25, 20, 15, 10):
        assert runs[f"visionzip_r{share}"].compressor.tokens_per_frame == math.ceil(64 * share / 100 - 1e-9)
        for name in ("uniform", "random", "vidcom2", "evs", "fastvid", "prunevid"):
            assert runs[f"{name}_r{share}"].compressor.retain_ratio == share / 100
        outer = runs[f"holitom_r{share}"].compressor.outer
        assert outer == OuterConfig(share / 100, 0.65 if share == 10 else 0.8)
        assert outer == runs[f"holitom_without_inner_r{share}"].compressor.outer


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthvid")
    make_split(folder, "guard", questions=12)
    return folder


def test_an_interrupted_campaign_goes_on_and_a_changed_one_starts_anew(monkeypatch, tmp_path, data, untrained):
    runs = {name: load_config(f"configs/tiny/{name}.yaml") for name in ("vanilla", "uniform_r10")}
    runs = {name: config for name, config in runs.items()} | {BLANK: runs["vanilla"]}
    asked = Campaign(untrained, data, "guard", tmp_path / "answers")
    monkeypatch.setattr(campaign, "_CLIPS_PER_BLOCK", 1)

    class Stop(Exception):
        pass

    def stop(done: int, blocks: int) -> None:
        assert blocks > 1
        raise Stop

    with pytest.raises(Stop):
        run(asked, runs, 1, stop)
    left: list[int] = []
    found = run(asked, runs, 1, lambda done, blocks: left.append(blocks))
    clips = len({answer.clip for answer in found["vanilla"]})
    assert left == [clips - 1] * (clips - 1)
    assert [answer.id for answer in found["vanilla"]] == [item.identity for item in asked.items()]
    assert {len(rows) for rows in found.values()} == {12}
    assert run(asked, runs, 1, lambda *_: pytest.fail("nothing is left to do")) == found
    path = sorted((tmp_path / "answers").glob("*.jsonl"))[0]
    lines = path.read_text().splitlines()
    header = json.loads(lines[0])
    assert header["checkpoint"] == checkpoint_hash(untrained)
    path.write_text("\n".join([json.dumps({**header, "checkpoint": "other"}), *lines[1:]]))
    assert run(asked, runs, 1, lambda done, blocks: left.append(blocks)) == found
    assert left[-1] == clips
    path.write_text(path.read_text()[:-20])  # what a full disk leaves
    assert run(asked, runs, 1, lambda *_: None) == found


def test_two_processes_answer_as_one_does(tmp_path, data, untrained):
    runs = {"holitom_r25": load_config("configs/tiny/holitom_r25.yaml")}
    one = run(Campaign(untrained, data, "guard", tmp_path / "a", limit=2), runs, 1, lambda *_: None)
    two = run(Campaign(untrained, data, "guard", tmp_path / "b", limit=2), runs, 2, lambda *_: None)
    assert one == two
    assert len(one["holitom_r25"]) > 4


def record(result: dict) -> dict:
    facts = {"commit": "c0ffee", "device": "a processor", "torch": "2", "date": "2026-01-01T00:00Z"}
    return {"command": "python -m eval.synthetic.answers.table", **facts, "result": result}


def measured(capsys, folder: Path, data: Path, checkpoint: Path, name: str, only: list[str]) -> dict:
    """What ``eval.instruments.record`` would write of one command, on two clips."""
    common = [
        "--data",
        str(data),
        "--split",
        "guard",
        "--checkpoint",
        str(checkpoint),
        "--limit",
        "2",
        "--workers",
        "1",
    ]
    table.main([name, *common, "--answers", str(folder / "answers"), "--only", *only])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    facts = {"commit": "c0ffee", "device": "a processor", "torch": "2", "date": "2026-01-01T00:00Z"}
    (folder / f"{name}.json").write_text(
        json.dumps(stamped("tiny", {"command": "python -m x", **facts, "result": result}))
    )
    return result


def test_measured_results_become_pages_and_figures(capsys, tmp_path, data, untrained):
    shares = ["vanilla", "holitom_r25", "holitom_r10", "uniform_r25", "random_r25"]
    result = measured(capsys, tmp_path, data, untrained, "main", shares)
    assert set(result["rows"]) == {*shares, BLANK, "vanilla_f8"}
    assert "holitom_r25 - uniform_r25" in result["duels"]
    assert {"commit", "device", "checkpoint", "data", "settings"} <= set(result)
    stages = "holitom_without_inner_r15"
    points = [stages, "holitom_r15", *(f"{stages},outer.similarity_threshold={value}" for value in (0.3, 0.9))]
    result = measured(capsys, tmp_path, data, untrained, "ablations", points)
    assert {name: list(grid["points"]) for name, grid in result["ablations"].items() if grid["points"]} == {
        "stages": points[:2],
        "threshold": points[2:],
    }
    table_pages.main([str(tmp_path)])
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    text = Path(made["page"]).read_text()
    sections = text.split("\n## ")[1:]
    assert text.count(NOTICE) == len(sections) + 1
    assert all("tiny learned model" in section.splitlines()[0] for section in sections)
    row = result["rows"][points[-1]]
    assert f"| {points[-1]} | {100 * row['score']:.1f} ± " in text
    names = {Path(picture).stem for picture in made["pictures"]}
    assert names == {"main_flops", "ablation_threshold", "ablation_stages"}
    for picture in made["pictures"]:
        assert np.asarray(Image.open(picture).convert("RGB")).std() > 10


def test_every_figure_carries_the_notice():
    from eval.report.figures.tiny import ablation, score_by_flops  # noqa: PLC0415 - matplotlib

    full = scores(answers("111101111011"), answers("111101111011"))
    rows = {"vanilla": full, "vanilla_f8": full, "uniform_r10": full, "uniform_r10,retain_ratio=0.2": full}
    result = {"rows": rows, "frames": {"vanilla": 8, "uniform_r10": 8}, "split": "test"}
    curve = {"title": "t", "points": {"uniform_r10,retain_ratio=0.2": {"changes": ["retain_ratio=0.2"]}}}
    for figure in (score_by_flops({"result": result}), ablation("share", curve, rows)):
        assert figure._suptitle.get_text() == NOTICE
    assert ablation("share", curve, rows).axes[0].get_xlabel() == "retain_ratio"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["main", "--data", "/nowhere"], "holds no split 'test'"),
        (["main", "--data", "/nowhere", "--only", "holitom"], "--only 'holitom' is no run of this table"),
        (["main", "--data", "/nowhere", "--frames", "0"], "--frames = 0"),
        (["main", "--data", "/nowhere", "--workers", "0"], "--workers = 0"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        table.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no result"):
        table_pages.load(tmp_path)
    (tmp_path / "main.json").write_text("[]")
    with pytest.raises(InputError, match="measure it again"):
        table_pages.load(tmp_path)
