"""Grids, their scripts, and runs of them: what is finished is skipped, what fails does not stop the rest."""

import json
import os
import stat
from pathlib import Path

import pytest

from eval.benchmarks import rehearsal, sweep_runs
from eval.benchmarks.loading import load_runs
from eval.benchmarks.rehearsal import own_tasks, rehearsal_overrides
from eval.benchmarks.sweep import find_grid, main
from eval.benchmarks.sweep_runs import Request, finished, run_all
from eval.instruments.fingerprints import checkpoint_identity
from eval.instruments.models.random_checkpoint import make_random_checkpoint
from eval.paper.grids import POINT_FILE, SWEEPS, Point, load_grid, paper_grids, point_name
from eval.synthetic.world.dataset import make_split
from holitom.shipped import CONFIGS
from llava.errors import InputError

SCRIPTS = Path(__file__).parents[3] / "scripts"
MODEL = "llava_onevision_7b"


def grid_file(folder: Path, *points: str, tasks: str = "[egoschema_subset]", table: str = "ablation") -> Path:
    path = folder / "grid.yaml"
    lines = "".join(f"  - {point}\n" for point in points)
    path.write_text(f"title: a test\ntable: {table}\ntasks: {tasks}\npoints:\n{lines}")
    return path


def test_points_of_lines_and_of_lists_of_values(tmp_path: Path) -> None:
    base = f"configs/{MODEL}/holitom_r15.yaml"
    lists = f"{{config: {base}, grid: {{outer.retain_ratio: [0.1, 0.2], inner.causal: [true, false]}}}}"
    grid = load_grid(grid_file(tmp_path, f"configs/{MODEL}/vanilla.yaml", f"{base} outer=null", lists))
    assert [point.name for point in grid.points] == [
        f"{MODEL}/vanilla",
        f"{MODEL}/holitom_r15,outer=null",
        *[
            f"{MODEL}/holitom_r15,inner.causal={causal},outer.retain_ratio={ratio}"
            for ratio in (0.1, 0.2)
            for causal in ("true", "false")
        ],
    ]
    settings = grid.points[3].settings().compressor
    assert (settings.outer.retain_ratio, settings.inner.causal) == (0.1, False)
    assert grid.points[1].settings().compressor.outer is None


def test_a_name_does_not_depend_on_the_order_of_changes() -> None:
    assert point_name("configs/m/a.yaml", ["b=1", "a=[1, 2]"]) == point_name("configs/m/a.yaml", ["a=[1,2]", "b=1"])
    assert "/" not in point_name("configs/m/a.yaml", ["head_weights=../x/y"]).partition("/")[2]


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        (["configs/llava_onevision_7b/vanilla.yaml"] * 2, {}, "stands twice"),
        (["configs/llava_onevision_7b/absent.yaml"], {}, "no configuration file"),
        (["configs/llava_onevision_7b/holitom_r15.yaml outer.tau=1"], {}, "unknown key"),
        (["{config: a.yaml}"], {}, "is no point"),
        (["{config: a.yaml, grid: {x: 1}}"], {}, "list of values"),
        (["configs/llava_onevision_7b/vanilla.yaml"], {"table": "figure"}, "table is 'figure'"),
        (["configs/llava_onevision_7b/vanilla.yaml"], {"tasks": "[]"}, "tasks is"),
    ],
)
def test_grids_that_are_none(tmp_path: Path, points: list[str], options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_grid(grid_file(tmp_path, *points, **options))


def test_absent_and_unreadable_grids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find_grid("absent")
    (tmp_path / "a.yaml").write_text("[")
    with pytest.raises(InputError, match="no readable YAML"):
        load_grid(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("points: []")
    with pytest.raises(InputError, match="needs the keys"):
        load_grid(tmp_path / "a.yaml")


def test_every_grid_has_its_script_and_every_script_its_grid() -> None:
    grids = {grid.name for grid in paper_grids()}
    scripts = {path.stem: path for kind in ("eval_", "ablate_") for path in SCRIPTS.glob(f"{kind}*.sh")}
    assert grids == set(scripts)
    assert len(grids) == 12
    for name, path in scripts.items():
        text = path.read_text()
        assert f"bash scripts/{name}.sh --fixture" in text
        assert f"eval.benchmarks.sweep {name} " in text
        assert os.access(path, os.X_OK)


def test_every_grid_has_an_uncompressed_run_for_each_number_of_frames() -> None:
    for grid in paper_grids():
        runs = [(point.model, point.settings()) for point in grid.points]
        vanilla = {(model, run.model.num_frames) for model, run in runs if run.method is None}
        assert {(model, run.model.num_frames) for model, run in runs} == vanilla, grid.name


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("llava_onevision_7b/vanilla", ["model.num_frames=8"]),
        ("llava_onevision_7b/holitom_r15", ["model.num_frames=8", "inner.merge_layer=4"]),  # 18 of 28 -> 4 of 6
        ("llava_onevision_72b/holitom_r15", ["model.num_frames=8", "inner.merge_layer=5"]),  # 60 of 80 -> 5 of 6
        ("llava_onevision_7b/fastv", ["model.num_frames=8", "prune_layer=1"]),
        ("llava_onevision_7b/pdrop", ["model.num_frames=8", "drop_layers=[1, 2, 3]"]),
        ("llava_video_7b/holitom_without_inner_r15", ["model.num_frames=16"]),
    ],
)
def test_rehearsals_keep_the_relative_depth(tmp_path: Path, config: str, expected: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 6}))
    point = Point(CONFIGS / f"{config}.yaml")
    changes = rehearsal_overrides(point, tmp_path)
    assert list(changes) == expected
    Point(point.config, changes).settings()


def test_layers_of_the_ablation_stay_apart_in_six_layers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 6}))
    grid = load_grid(SWEEPS / "ablate_inner_layer.yaml")
    layers = [rehearsal_overrides(point, tmp_path)[-1] for point in grid.points[1:]]
    assert sorted(layers) == [f"inner.merge_layer={layer}" for layer in (1, 2, 3, 4, 5)]


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        rehearsal_overrides(Point(CONFIGS / f"{MODEL}/vanilla.yaml"), tmp_path)
    assert own_tasks(["no_such_task"]) is None


def request(folder: Path, name: str, **changes) -> Request:
    config = str(CONFIGS / f"{MODEL}/vanilla.yaml")
    known = {"overrides": (), "tasks": ("videomme",), "data": None, "checkpoint": None, "limit": 1, "rehearsal": None}
    return Request(name=name, config=config, output=str(folder / name), **{**known, **changes})


def leave_result(asked: Request, weights: str = "w") -> None:
    folder = Path(asked.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POINT_FILE).write_text(json.dumps(asked.record()))
    (folder / "samples.jsonl").write_text("")
    (folder / "result.json").write_text(json.dumps({"checkpoint": {"weights_sha256": weights}}))


def test_finished_is_the_whole_result_of_the_same_request(tmp_path: Path) -> None:
    asked = request(tmp_path, "a")
    assert not finished(asked)
    leave_result(asked)
    assert finished(asked)
    (tmp_path / "a" / "samples.jsonl").unlink()
    assert not finished(asked)
    for change in ({"limit": 2}, {"tasks": ("mvbench",)}, {"overrides": ("x=1",)}, {"checkpoint": "other"}):
        with pytest.raises(InputError, match=f"of other {next(iter(change))}"):
            finished(request(tmp_path, "a", **change))
    (tmp_path / "a" / POINT_FILE).unlink()
    with pytest.raises(InputError, match="name another folder"):
        finished(asked)


def test_finished_is_of_the_weights_that_are_there_now(tmp_path: Path) -> None:
    """A checkpoint of the same name in another folder, or one that was trained again, is another one."""
    for name in ("a/final", "b/final"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(name)
    asked = request(tmp_path, "point", checkpoint=str(tmp_path / "a/final"))
    leave_result(asked, checkpoint_identity(tmp_path / "a/final")["weights_sha256"])
    assert finished(asked)
    with pytest.raises(InputError, match=r"of other weights than those in .*b/final"):
        finished(request(tmp_path, "point", checkpoint=str(tmp_path / "b/final")))
    (tmp_path / "a/final/model.safetensors").write_text("trained again")
    with pytest.raises(InputError, match="of other weights"):
        finished(asked)
    (tmp_path / "point" / "result.json").write_text("[")
    with pytest.raises(InputError, match="is damaged"):
        finished(asked)


def test_tasks_that_are_paths_have_no_folder_of_ours() -> None:
    assert own_tasks(["/tmp/x.yaml", "*", "../synthvid", ""]) is None
    assert own_tasks(["mvbench", "synthvid"]) == CONFIGS.parent / "eval" / "synthetic" / "task"


def test_own_data_are_made_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SYNTHVID_DATA", str(tmp_path / "data"))
    made = []

    def make(folder: Path, split: str) -> None:
        made.append(split)
        make_split(folder, split, 24)

    monkeypatch.setattr(rehearsal, "make_split", make)
    for _ in range(2):
        rehearsal.prepare_own_data(["mvbench", "synthvid"])
    assert made == ["test"]
    next((tmp_path / "data/test/clips").iterdir()).unlink()
    with pytest.raises(InputError, match="is missing"):
        rehearsal.prepare_own_data(["synthvid"])
    assert made == ["test"]  # what is damaged is not replaced unasked


def fake_python(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """In the place of the interpreter: a shell script, whose arguments are -P -m MODULE REQUESTS STATES."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sweep_runs.sys, "executable", str(path))
    return path


def test_a_killed_process_takes_one_point_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process dies in the second point; a new one goes on with the third."""
    script = f"""
echo started >> {tmp_path}/starts
if grep -q '"a"' "$4"; then
  echo '{{"name": "a"}}' >> "$5"; echo '{{"name": "a", "reason": ""}}' >> "$5"; echo '{{"name": "b"}}' >> "$5"
  kill -9 $$
fi
echo '{{"name": "c"}}' >> "$5"; echo '{{"name": "c", "reason": "its video is empty"}}' >> "$5"
"""
    fake_python(tmp_path, monkeypatch, script)
    failed = run_all([request(tmp_path, name) for name in "abc"])
    assert failed == {"b": "the process ended with status -9", "c": "its video is empty"}
    assert (tmp_path / "starts").read_text().count("started") == 2
    assert json.loads((tmp_path / "c" / POINT_FILE).read_text())["name"] == "c"


def test_a_process_that_cannot_start_ends_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path, monkeypatch, "exit 3")
    failed = run_all([request(tmp_path, name) for name in "ab"])
    assert set(failed) == {"a", "b"}


def test_several_processes_are_started_for_each_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" >> {tmp_path}/words\ncase "$*" in *output-b*) echo "error: no video" >&2; exit 2;; esac'
    fake_python(tmp_path, monkeypatch, script)
    asked = [request(tmp_path, name, data=str(tmp_path)) for name in ("output-a", "output-b")]
    assert run_all(asked, processes=2) == {"output-b": "no video"}
    words = (tmp_path / "words").read_text().splitlines()[0]
    assert f"-m eval.benchmarks.run configs/{MODEL}/vanilla.yaml --tasks videomme" in words
    assert words.endswith("--num-processes 2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval_ov-7b"], "--data is missing"),
        (["eval_ov-7b", "--fixture", "--data", "x"], "leave out --data"),
        (["eval_ov-7b", "--data", "absent", "-o", "nowhere"], "is no folder"),
        (["eval_ov-7b", "--fixture", "--num-processes", "0"], "out of range"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as status:
        main(words)
    assert status.value.code == 2
    assert message in capsys.readouterr().err


def test_a_rehearsal_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Vanilla, HoliTom, and FastVID with too few frames: the last one fails, the others finish and are skipped then."""
    monkeypatch.chdir(tmp_path)
    make_random_checkpoint("tiny", width=32)
    holitom, fastvid = f"configs/{MODEL}/holitom_r25.yaml", f"configs/{MODEL}/fastvid_r25.yaml"
    grid = grid_file(tmp_path, f"{fastvid} model.num_frames=16", f"configs/{MODEL}/vanilla.yaml", holitom)
    words = [str(grid), "--fixture", "--checkpoint", "tiny", "-o", "out"]

    def sweep() -> tuple[int, dict]:
        with pytest.raises(SystemExit) as status:
            main(words)
        return status.value.code, json.loads(capfd.readouterr().out.splitlines()[-1])

    status, first = sweep()
    assert status == 1
    assert first["computed"] == [f"{MODEL}/vanilla", f"{MODEL}/holitom_r25"]
    assert list(first["failed"]) == [f"{MODEL}/fastvid_r25,model.num_frames=16"]
    runs = {run.name: run for run in load_runs(tmp_path / "out")}
    assert set(runs) == set(first["computed"])
    assert runs[f"{MODEL}/holitom_r25"].result["config"]["file"] == holitom
    assert runs[f"{MODEL}/holitom_r25"].result["retention"]["inside_llm"]["mean"] < 0.15
    assert all(str(run.rehearsal).startswith("miniature data") for run in runs.values())
    before = (tmp_path / "out" / MODEL / "vanilla" / "result.json").stat().st_mtime_ns
    grid_file(tmp_path, f"configs/{MODEL}/vanilla.yaml", holitom)
    status, again = sweep()
    assert (status, again["skipped"], again["computed"]) == (0, first["computed"], [])
    assert (tmp_path / "out" / MODEL / "vanilla" / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--share", "0/2", "--num-processes", "2"], "go without --num-processes"),
        (["--merge", "2", "--num-processes", "2"], "go without --num-processes"),
        (["--share", "0/2", "--merge", "2"], "give one of them"),
        (["--share", "2/2"], "is no share"),
    ],
)
def test_options_of_shares_that_do_not_fit(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(grid_file(tmp_path, f"configs/{MODEL}/vanilla.yaml")), "--fixture", *words])
    assert caught.value.code == 2
    assert why in capsys.readouterr().err
