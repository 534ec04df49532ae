"""The tables against hand counts; the gate; rehearsals; results that are damaged, partial or not there."""

import csv
import json
import math
from pathlib import Path

import pytest

from eval.benchmarks.loading import load_runs
from eval.benchmarks.runs import Run
from eval.paper.benchmarks import BY_TASK, PAPER_TASKS
from eval.paper.formula import ONEVISION_7B
from eval.paper.grids import paper_grids
from eval.paper.scores import MAIN_SCORES
from eval.report.tables.__main__ import build, main
from eval.report.tables.efficiency import measured_tflops
from eval.report.tables.layout import Table
from eval.report.tables.sections import outlines
from llava.errors import InputError
from tests.eval.benchmarks.made_results import share, whole, write_run

MODEL = "llava_onevision_7b"
PAPER = MAIN_SCORES["Vanilla", 100]


def paper_like(shift: float = 0.0) -> dict[str, list[bool]]:
    """Whole benchmarks with the paper's uncompressed scores, give or take ``shift`` points."""
    return {task: whole(task, (PAPER.of(task) or 0) + shift) for task in PAPER_TASKS}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uncompressed model and HoliTom at 15 % on the paper's checkpoint and the whole benchmarks."""
    root = tmp_path_factory.mktemp("results")
    write_run(root / "vanilla", f"{MODEL}/vanilla", paper_like())
    write_run(root / "holitom", f"{MODEL}/holitom_r15", paper_like(-1.0))
    return root


@pytest.fixture(scope="module")
def real_runs(real: Path) -> list[Run]:
    return load_runs(real)


@pytest.fixture(scope="module")
def real_tables(real_runs: list[Run]) -> dict[str, Table]:
    tables, summary = build(real_runs, paper_grids())
    assert summary["reproductions"]
    assert not summary["withheld"]
    assert not summary["outside_paper"]
    return {table.slug: table for table in tables}


def made(root: Path) -> tuple[dict[str, Table], dict]:
    tables, summary = build(load_runs(root), paper_grids())
    return {table.slug: table for table in tables}, summary


def cell(table: Table, label: str, column: str) -> str:
    [row] = [row for row in table.rows if row[0] == label][-1:] if label != "HoliTom" else [table.rows[18]]
    found = row[list(table.header).index(column)]
    return found if isinstance(found, str) else found.text()


def clustered_error(marks: list[bool]) -> float:
    """By hand: three questions about each video, in percent."""
    mean = sum(marks) / len(marks)
    videos = [marks[start : start + 3] for start in range(0, len(marks), 3)]
    spread = sum((sum(video) - mean * len(video)) ** 2 for video in videos)
    return 100 * math.sqrt(len(videos) / (len(videos) - 1) * spread) / len(marks)


def test_paper_ours_difference_by_hand(real_tables: dict[str, Table]) -> None:
    main_table = real_tables["main"]
    assert not main_table.title.startswith("REHEARSAL")
    assert main_table.rows[18][0] == "HoliTom"
    for task, title, printed in (("videomme", "VideoMME", 57.3), ("longvideobench_val_v", "LongVideoBench", 56.4)):
        marks = whole(task, (PAPER.of(task) or 0) - 1)
        ours = 100 * sum(marks) / len(marks)
        expected = f"{printed} / {ours:.1f} ± {clustered_error(marks):.1f} / {ours - printed:+.1f}"
        assert cell(main_table, "HoliTom", title) == expected
    assert cell(main_table, "HoliTom", "MVBench").startswith("58.1 / 57.5 ± ")  # 115 of 200 in each sub-task
    assert cell(main_table, "HoliTom", "EgoSchema subset").startswith("61.2 / 59.4† ± ")
    assert cell(main_table, "FastV", "VideoMME") == "56.1 / n/a / n/a"
    assert cell(main_table, "FastVID", "EgoSchema subset") == "n/a"
    assert any(note.startswith("†") for note in main_table.notes)


def test_average_and_share_of_vanilla_by_hand(real_tables: dict[str, Table]) -> None:
    def mean(shift: float) -> float:
        scores = [100 * sum(marks) / len(marks) for marks in paper_like(shift).values()]
        return sum(scores) / 4

    main_table = real_tables["main"]
    ours, vanilla = mean(-1.0), mean(0.0)
    assert cell(main_table, "HoliTom", "Average").startswith(f"58.2 / {ours:.1f}†")
    assert cell(main_table, "HoliTom", "% of vanilla").startswith(f"99.7 / {100 * ours / vanilla:.1f}†")
    assert cell(main_table, "Vanilla", "% of vanilla").startswith("100.0 / 100.0†")


def test_differences_are_paired_and_by_video(real_tables: dict[str, Table]) -> None:
    table = real_tables["main_differences"]
    [row] = table.rows
    assert row[0] == "HoliTom, 15 %"
    difference = row[list(table.header).index("VideoMME")]
    ours, theirs = whole("videomme", 57.6), whole("videomme", 58.6)
    assert difference.value == pytest.approx(100 * (sum(ours) - sum(theirs)) / 2700)
    assert difference.low < difference.value < difference.high
    # three questions about each video: the clustered comparison, and not McNemar's, which counts them as independent
    gaps = [sum(ours[at : at + 3]) - sum(theirs[at : at + 3]) for at in range(0, 2700, 3)]
    mean = sum(gaps) / 900
    error = math.sqrt(900 / 899 * sum((gap - mean) ** 2 for gap in gaps)) / 900
    assert difference.p == pytest.approx(math.erfc(abs(mean) / error / math.sqrt(2)))


def test_categories_are_counted_from_the_answers(real_tables: dict[str, Table]) -> None:
    tables = real_tables
    table = tables["main_videomme_duration"]
    marks = whole("videomme", 58.6)
    short = marks[0::3]
    assert list(table.header) == ["Method", "short", "medium", "long"]
    assert cell(table, "Vanilla", "short").startswith(f"{100 * sum(short) / 900:.1f} ± ")
    assert cell(table, "Vanilla", "short").endswith("(900)")
    groups = tables["main_longvideobench_val_v_duration_group"]
    assert list(groups.header) == ["Method", "15", "60", "600", "3600"]
    subtasks = tables["main_mvbench_subtask"]
    assert len(subtasks.header) == 21
    assert cell(subtasks, "Vanilla", "moving_count").endswith("(200)")


def test_a_sub_task_weighs_the_same_whatever_its_size(tmp_path: Path) -> None:
    """21 questions: one sub-task has two, both wrong, the others are right: 19 of 20, not 19 of 21."""
    marks = [True] * 21
    marks[0] = marks[1] = False  # the first sub-task by name is action_antonym

    # question 20 belongs to the first sub-task of the list, action_sequence, so move it to the first by name
    def regroup(samples: list[dict]) -> None:
        extra = [sample for sample in samples if sample["doc_id"] == 1]
        extra[0]["subtask"], extra[0]["correct"] = "mvbench_action_antonym", False
        first = [sample for sample in samples if sample["subtask"] == "mvbench_action_antonym"]
        for sample in samples:
            sample["correct"] = sample not in first

    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"mvbench": marks}, samples=regroup)
    [run] = load_runs(tmp_path)
    assert run.score("mvbench").value == pytest.approx(95.0)


def test_mvbench_needs_all_20_sub_tasks(tmp_path: Path) -> None:
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"mvbench": [True] * 19})
    tables, _ = made(tmp_path)
    assert cell(tables["main"], "Vanilla", "MVBench") == "58.3 / n/a / n/a"
    assert len(tables["main_mvbench_subtask"].header) == 20


def small(right: int = 20) -> dict[str, list[bool]]:
    return {"videomme": share(30, right), "mvbench": share(40, right)}


def break_prompts(samples: list[dict]) -> None:
    samples[-1]["prompt"] += " "  # of VideoMME, the last task by name


def drop_question(samples: list[dict]) -> None:
    samples.pop()


def other_frames(samples: list[dict]) -> None:
    samples[-1]["frames_sha256"] = "other"


def other_video(samples: list[dict]) -> None:
    samples[-1]["video_sha256"] = "other"


@pytest.mark.parametrize(
    ("change", "words"),
    [(break_prompts, "prompts"), (drop_question, "questions"), (other_frames, "frames"), (other_video, "videos")],
)
def test_a_score_that_differs_in_more_than_the_method_is_withheld(tmp_path: Path, change, words: str) -> None:
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", small())
    write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", small(15), samples=change)
    tables, summary = made(tmp_path)
    assert cell(tables["main"], "HoliTom", "VideoMME") == "57.3 / withheld / n/a"
    assert cell(tables["main"], "HoliTom", "MVBench").startswith("58.1 / 37.5 ")  # the other task is not to blame
    assert summary["withheld"] == [f"{MODEL}/holitom_r15: the {words} of videomme differ from the uncompressed run's"]
    assert any("withheld" in note for note in tables["main"].notes)


def test_without_the_uncompressed_run_nothing_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", small())
    with pytest.raises(SystemExit) as status:
        main([str(tmp_path)])
    out = capsys.readouterr()
    assert status.value.code == 1
    assert "no uncompressed run of the same setup" in out.err
    assert "57.3 / withheld / n/a" in out.out
    assert json.loads(out.out.splitlines()[-1])["withheld"]


@pytest.mark.parametrize("change", [{"setup_hash": "another"}, {"weights": "v" * 64}, {"device": "another GPU"}])
def test_an_uncompressed_run_of_another_setup_is_no_baseline(tmp_path: Path, change: dict) -> None:
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", small(), **change)
    write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", small(15))
    assert made(tmp_path)[1]["withheld"]


def test_a_score_far_from_the_paper_s_is_marked(tmp_path: Path) -> None:
    ego = {"egoschema_subset": whole("egoschema_subset", 60.4)}
    for harness in ("0.7.3", "0.3.0"):  # other definitions are not held against the paper
        far, near = {"videomme": whole("videomme", 55.0), **ego}, {"videomme": whole("videomme", 57.0), **ego}
        write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", far, harness=harness)
        write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", near, harness=harness)
        tables, summary = made(tmp_path)
        assert len(summary["outside_paper"]) == (harness == "0.3.0")
        notes = " ".join(next(table for table in tables.values() if table.slug == "main").notes)
        assert f"task definitions of lmms-eval {harness}" in notes
        assert ("not held against its scores" in notes) == (harness == "0.7.3")
        assert "63.9 in cokeshao/HoliTom#16" in notes
    [note] = summary["outside_paper"]
    assert "VideoMME" in note
    assert "55.0, the paper 58.6: contradicted" in note
    assert "‡" in cell(tables["main"], "Vanilla", "VideoMME")
    assert "‡" in cell(tables["main"], "HoliTom", "VideoMME")
    assert "‡" not in cell(tables["main"], "HoliTom", "EgoSchema subset")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fixture": True}, "miniature data"),
        ({"random": True}, "random weights"),
        ({"limit": 3}, "limited to 3"),
        ({"checkpoint": "checkpoints/tiny"}, "not named like the paper's"),
        ({"checkpoint": "lmms-lab/llava-onevision-qwen2-7b-ov-chat"}, "not named like the paper's"),
        ({}, "30 questions of videomme"),
    ],
)
def test_rehearsals_are_called_so_and_not_held_against_the_paper(tmp_path: Path, change: dict, words: str) -> None:
    marks = whole("videomme", 58.6) if change and "limit" not in change else share(30, 20)
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"videomme": marks}, **change)
    tables, summary = made(tmp_path)
    assert tables["main"].title.startswith("REHEARSAL, no reproduction of the paper (")
    assert words in tables["main"].title
    assert cell(tables["main"], "Vanilla", "VideoMME").endswith("/ n/a")
    assert cell(tables["main"], "Vanilla", "VideoMME").startswith("58.6 / ")
    assert summary["reproductions"] == 0
    assert not summary["outside_paper"]
    assert all("REHEARSAL" in table.title for slug, table in tables.items() if slug.startswith("main"))


def test_a_local_copy_of_the_paper_s_checkpoint_counts(tmp_path: Path) -> None:
    cached = "models--lmms-lab--llava-onevision-qwen2-7b-ov/snapshots/1"
    for number, name in enumerate(("/data/llava-onevision-qwen2-7b-ov", cached)):
        write_run(
            tmp_path / f"{number}",
            f"{MODEL}/vanilla",
            {"videomme": whole("videomme", 58.6)},
            checkpoint=name,
            weights=str(number),
        )
    assert all(run.rehearsal is None for run in load_runs(tmp_path))


def test_rehearsal_and_real_results_stand_in_tables_of_their_own(real_runs: list[Run], tmp_path: Path) -> None:
    write_run(tmp_path / "tiny" / "vanilla", f"{MODEL}/vanilla", small(), random=True, weights="tiny")
    runs = real_runs + load_runs(tmp_path / "tiny")
    tables = {table.slug: table for table in build(runs, paper_grids())[0]}
    assert not tables["main"].title.startswith("REHEARSAL")
    assert tables["main_2"].title.startswith("REHEARSAL")


def test_each_number_of_frames_has_a_baseline_of_its_own(tmp_path: Path) -> None:
    for frames in (8, 32):
        overrides = () if frames == 32 else ("model.num_frames=8",)
        write_run(tmp_path / f"v{frames}", f"{MODEL}/vanilla", small(20 if frames == 32 else 10), overrides=overrides)
        write_run(tmp_path / f"h{frames}", f"{MODEL}/holitom_r15", small(12), overrides=overrides)
    tables, summary = made(tmp_path)
    assert not summary["withheld"]
    differences = {row[0]: row[1].value for row in tables["ablate_frames_differences"].rows}
    assert differences == {"holitom_r15": pytest.approx(-20.0), "holitom_r15,model.num_frames=8": pytest.approx(5.0)}


def test_bad_videos_and_unparsable_answers_stand_beside_the_score(tmp_path: Path) -> None:
    def spoil(samples: list[dict]) -> None:
        samples[0] |= {"bad_video": "empty", "parsed_ok": False, "correct": False, "tokens": None}
        samples[1] |= {"parsed_ok": False, "correct": False}

    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"videomme": [True] * 10}, samples=spoil)
    table = made(tmp_path)[0]["main"]
    assert cell(table, "Vanilla", "VideoMME").startswith("58.6 / 80.0 ")
    assert cell(table, "Vanilla", "Bad videos / unparsable answers") == "1 / 1"


def test_the_full_egoschema_set_has_no_score_here(tmp_path: Path) -> None:
    def hide(samples: list[dict]) -> None:
        for sample in samples:
            sample["correct"] = None

    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"egoschema": [True] * 5031}, samples=hide)
    tables, _ = made(tmp_path)
    assert cell(tables["main"], "Vanilla", "EgoSchema") == "60.4 / n/a / n/a"


def test_every_table_of_the_paper_is_there_with_nothing_run_but_one(real_tables: dict[str, Table]) -> None:
    tables = real_tables
    slugs = [slug for slug, *_ in outlines(paper_grids())]
    assert len(slugs) == 1 + 2 + 7
    assert set(slugs) <= set(tables)
    assert {"main_efficiency", "backbone_llava_video_7b_efficiency", "backbone_llava_onevision_72b"} <= set(tables)
    assert [row[0] for row in tables["main"].rows][:24] == [method for method, _ in MAIN_SCORES]
    assert cell(tables["ablate_threshold"], "holitom_r15", "VideoMME").startswith("57.3 / 57.6 ")
    assert tables["backbone_llava_video_7b"].rows[0][3:] == [
        *[tables["backbone_llava_video_7b"].rows[0][3]] * 6, "n/a"
    ]  # fmt: skip


def test_efficiency_by_hand(real_tables: dict[str, Table]) -> None:
    table = real_tables["main_efficiency"]
    row = table.rows[18]
    d, m = 3584, 18944

    def layer(n: int) -> int:
        return 4 * n * d * d + 2 * n * n * d + 2 * n * d * m

    measured = (18 * layer(960) + 10 * layer(480)) / 1e12
    assert row[0] == "HoliTom"
    assert row[3] == f"4.3 / 4.27 / {measured:.2f}"
    assert row[1] == "15 / 15.0"
    assert table.rows[23][5] == "500 + 85 + 156 / n/a"
    assert row[5] == "n/a / n/a"


def test_stages_that_are_not_recorded_have_no_measured_flops(tmp_path: Path) -> None:
    write_run(tmp_path / "pdrop", f"{MODEL}/pdrop", small())
    [run] = load_runs(tmp_path)
    assert measured_tflops(run, ONEVISION_7B) is None


def test_files_of_all_formats_and_the_json_line(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        main([str(real), "-o", str(tmp_path), "--format", "md,csv,latex"])
    assert status.value.code == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["runs"] == 2
    assert record["in_no_table"] == []
    assert {Path(name).name for name in record["files"]} >= {"tables.md", "tables.tex", "main.csv"}
    assert not list(tmp_path.glob("*.part"))
    with (tmp_path / "main.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[18]["Method"] == "HoliTom"
    assert [rows[18][f"VideoMME {name}"] for name in ("paper", "ours", "difference")] == ["57.3", "57.6", "+0.3"]
    assert all(None not in row and None not in row.values() for row in rows)
    text = (tmp_path / "tables.tex").read_text()
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == record["tables"]
    assert "±" not in text
    assert r"$\pm$" in text


def test_a_run_of_no_grid_is_named(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "odd", f"{MODEL}/vanilla", small(), overrides=("model.num_frames=5",))
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["in_no_table"] == [str(tmp_path / "odd")]


def damage_nothing_there(root: Path) -> None:
    (root / "vanilla" / "result.json").unlink()


def damage_samples_gone(root: Path) -> None:
    (root / "vanilla" / "samples.jsonl").unlink()


def damage_torn(root: Path) -> None:
    path = root / "vanilla" / "result.json"
    path.write_text(path.read_text()[:100])


def damage_torn_samples(root: Path) -> None:
    path = root / "vanilla" / "samples.jsonl"
    path.write_text(path.read_text()[:-40])


def damage_less_samples(root: Path) -> None:
    path = root / "vanilla" / "samples.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def damage_key(root: Path) -> None:
    path = root / "vanilla" / "result.json"
    raw = json.loads(path.read_text())
    del raw["setup"]
    path.write_text(json.dumps(raw))


def damage_point(root: Path) -> None:
    (root / "vanilla" / "point.json").write_text("{")


def damage_other_point(root: Path) -> None:
    (root / "vanilla" / "point.json").write_text(json.dumps({"name": f"{MODEL}/holitom_r15", "rehearsal": None}))


def damage_twice(root: Path) -> None:
    write_run(root / "again", f"{MODEL}/vanilla", small())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_nothing_there, "did not finish"),
        (damage_samples_gone, "did not finish"),
        (damage_torn, "no readable result"),
        (damage_torn_samples, "no readable result"),
        (damage_less_samples, "count other questions"),
        (damage_key, "lacks 'setup'"),
        (damage_point, "point.json is damaged"),
        (damage_other_point, "names holitom_r15"),
        (damage_twice, "are both llava_onevision_7b/vanilla"),
    ],
)
def test_damaged_and_partial_results(tmp_path: Path, damage, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", small())
    damage(tmp_path)
    with pytest.raises(SystemExit) as status:
        main([str(tmp_path)])
    error = capsys.readouterr().err
    assert status.value.code == 2
    assert words in error
    assert error.count("\n") == 1


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no result"):
        load_runs(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        load_runs(tmp_path / "absent")
    assert BY_TASK["videomme"].questions == 2700


@pytest.mark.parametrize("change", ["compressor", "model"])
def test_settings_that_the_name_does_not_promise_are_no_reproduction(tmp_path: Path, change: str) -> None:
    """Someone changed the file before the run: the paper's row must not get such a score."""
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", paper_like())
    folder = write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", paper_like(-1.0))
    result = json.loads((folder / "result.json").read_text())
    result["config"][change] |= {"num_frames": 8} if change == "model" else {"outer": {"retain_ratio": 0.5}}
    (folder / "result.json").write_text(json.dumps(result))
    runs = {run.folder.name: run.rehearsal for run in load_runs(tmp_path)}
    assert runs["vanilla"] is None
    assert runs["holitom"] == f"the settings are not those of configs/{MODEL}/holitom_r15.yaml"


def test_every_configuration_is_known_by_its_result(tmp_path: Path) -> None:
    """Lists and nothing but plain JSON come back from a result."""
    for config in ("pdrop", "prunevid_r15", "dycoke_r25"):
        write_run(tmp_path / config, f"{MODEL}/{config}", paper_like())
    assert {run.rehearsal for run in load_runs(tmp_path)} == {None}


def test_a_run_of_bad_videos_alone_has_no_retention(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", {"videomme": whole("videomme", 0)})
    result = json.loads((folder / "result.json").read_text())
    result["retention"] = {stage: {"mean": None} for stage in result["retention"]}
    (folder / "result.json").write_text(json.dumps(result))
    tables, _ = made(tmp_path)
    assert tables["main"].rows[0][1] == "100 / n/a"
    assert tables["main_efficiency"].rows[0][1:3] == ["100 / n/a", "n/a"]
