"""The data set: same bytes, balance, hashes that find damage, the checks of fairness and that they can fail."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from eval.synthetic.world.checks import (
    answer_problems,
    check,
    duplicates,
    invisible,
    letter_problems,
    letter_shares,
    text_limit,
    text_only,
)
from eval.synthetic.world.checks import main as checks_main
from eval.synthetic.world.dataset import load_questions, main, make_split, read_manifest, verify
from eval.synthetic.world.items import Item, item_of, letter_of
from eval.synthetic.world.questions import FAMILIES, Question, with_options
from eval.synthetic.world.selection import (
    LETTERS,
    SPLITS,
    askable,
    choose_clips,
    draw_world,
    family_sizes,
    tells_nothing,
)
from llava.errors import InputError
from llava.video import load_video
from tests.eval.synthetic.small_data import SIZES, small_data

GUARD_SHA256 = "dfda8169841d8c1488d985e0cb7e0271a439f882c93fbbccb5e5abecbad0ab72"


def items_of(split: str) -> list[Item]:
    """The questions of a whole split, without files."""
    found = []
    for place, clip in enumerate(choose_clips(SPLITS[split], SPLITS[split].questions, 0)):
        found += [
            Item(f"{split}-{place}-{q.family}", Path(f"{place}.mp4"), q.family, q, 8, clip.number)
            for q in clip.questions
        ]
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, list[Item]]:
    return {split: items_of(split) for split in ("test", "val", "guard")}


@pytest.fixture(scope="module")
def folder() -> Path:
    return small_data()


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_test_split_is_large_and_balanced(whole) -> None:
    items = whole["test"]
    assert len(items) == 1008
    assert 250 <= len({item.world for item in items}) <= 300
    families = Counter(item.family for item in items)
    assert set(families) == set(FAMILIES)
    assert min(families.values()) >= 80
    shares = letter_shares(items)
    assert all(0.22 <= share <= 0.28 for share in shares["all"])
    assert all(0.15 <= share <= 0.35 for family in FAMILIES for share in shares[family])
    assert letter_problems(items) == answer_problems(items) == []
    assert all(tells_nothing(item.question) for item in items)
    for family in ("direction", "count", "shots", "scene", "location", "attribute"):
        answers = Counter(i.question.options[i.question.answer] for i in items if i.family == family)
        assert max(answers.values()) == min(answers.values()), answers


def test_text_alone_tells_nothing(whole) -> None:
    for shares in text_only(whole["val"], whole["test"]).values():
        assert shares["all"] <= 0.30


def test_the_reader_of_options_finds_the_leak_of_directions_drawn_as_in_training() -> None:
    """A direction offered without its opposite is never right; the data set must leave such questions out."""
    found: list[Item] = []
    for number in range(250):
        world, rng = draw_world(SPLITS["val"], 99, number)
        for candidate in askable(world, SPLITS["val"], rng)["direction"]:
            question = with_options(candidate, rng)
            found.append(Item(str(len(found)), Path("x.mp4"), "direction", question, 8, number))
    half = len(found) // 2
    assert text_only(found[:half], found[half:])["company"]["direction"] > 0.32


def test_guard_questions_never_change(whole) -> None:
    lines = [f"{i.world} {i.question.prompt} {LETTERS[i.question.answer]}" for i in whole["guard"]]
    assert len(lines) == 200
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GUARD_SHA256


def test_splits_share_no_world(whole) -> None:
    worlds = {name: {repr(draw_world(SPLITS[name], 0, i.world)[0]) for i in items} for name, items in whole.items()}
    every = [world for found in worlds.values() for world in found]
    assert len(every) == len(set(every))


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for split in ("guard", "long"):
        make_split(tmp_path, split, SIZES[split])
        assert hashes(tmp_path / split) == hashes(folder / split)
    make_split(tmp_path, "guard", SIZES["guard"], seed=1)
    assert hashes(tmp_path / "guard") != hashes(folder / "guard")


def test_clips_and_questions_are_as_the_rows_say(folder: Path) -> None:
    for split, questions in SIZES.items():
        items = load_questions(folder, split)
        assert len(items) == questions == len({item.identity for item in items})
        spec = SPLITS[split]
        assert Counter(item.family for item in items) == family_sizes(spec, questions)
        first = items[0]
        clip = load_video(first.clip, first.frames)
        assert clip.total_frames == spec.file_frames
        assert first.frames == spec.samplings[0] == len(clip.frames)
        assert first.clip.is_file()


def test_a_whole_split_is_left_and_other_arguments_make_it_anew(copy: Path) -> None:
    before = (copy / "guard" / "manifest.json").stat().st_mtime_ns
    assert not make_split(copy, "guard", SIZES["guard"])
    assert (copy / "guard" / "manifest.json").stat().st_mtime_ns == before
    assert make_split(copy, "guard", SIZES["guard"], seed=3)
    assert read_manifest(copy, "guard")["seed"] == 3
    assert sorted(path.name for path in copy.iterdir()) == ["README.md", "guard", "long", "test", "val"]


def test_damage_is_found_and_named(copy: Path) -> None:
    clip = copy / "guard" / "clips" / "0001.mp4"
    content = bytearray(clip.read_bytes())
    content[len(content) // 2] ^= 1
    clip.write_bytes(content)
    with pytest.raises(InputError, match=r"0001\.mp4 differs from its manifest.*-m eval\.synthetic\.world\.dataset"):
        load_questions(copy, "guard")
    clip.unlink()
    with pytest.raises(InputError, match=r"0001\.mp4 is missing"):
        verify(copy, "guard")
    (copy / "guard" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        verify(copy, "guard")
    assert make_split(copy, "guard", SIZES["guard"])
    verify(copy, "guard")


def test_data_of_other_code_is_refused(copy: Path) -> None:
    path = copy / "guard" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code_sha256": "0"}))
    with pytest.raises(InputError, match="made by other code"):
        load_questions(copy, "guard")


def test_wrong_arguments(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="questions = 11 is too few for test: at least 12"):
        make_split(tmp_path, "test", 11)
    with pytest.raises(InputError, match="seed = -1 is out of range"):
        make_split(tmp_path, "test", 12, seed=-1)
    with pytest.raises(InputError, match="split = 'train' is unknown: it must be one of test, long, val, guard"):
        load_questions(folder, "train")
    with pytest.raises(InputError, match="holds no split 'test' of synthvid: make it with"):
        load_questions(tmp_path, "test")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        make_split(tmp_path, "val", 12)
    assert (tmp_path / "val" / "thesis.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make_split(tmp_path / "file" / "below", "val", 12)


def test_checks_pass_on_what_is_made_and_name_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(folder, ("guard", "long"))
    assert report["duplicates"] == []
    assert [found["problems"] for found in report["splits"].values()] == [[], []]
    assert report["splits"]["long"]["needle_frames"][64] in (1, 2)
    with pytest.raises(SystemExit) as stop:
        checks_main([str(folder), "--split", "guard"])
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["problem_count"] == 0


def test_each_check_can_fail(folder: Path, copy: Path) -> None:
    items = load_questions(folder, "test")
    first = items[0]
    wrong = replace(first, question=replace(first.question, answer=(first.question.answer + 1) % 4))
    assert invisible([first], SPLITS["test"], 0) == []
    assert invisible([wrong], SPLITS["test"], 0) == [
        f"{first.identity}: not answerable from {n} frames" for n in (8, 16)
    ]
    always = [replace(item, question=replace(item.question, answer=0)) for item in items]
    assert any(problem.startswith("all: A is right in 100.0%") for problem in letter_problems(always))
    same = Question("scene", "Which?", ("snow", "sand", "wood", "grass"), 0)
    assert answer_problems([replace(first, family="scene", question=same)] * 9) == [
        "scene: 'snow' is right 9 times of 9"
    ]
    assert text_only(always, always)["letter"]["all"] == 1
    shutil.copy(copy / "test" / "clips" / "0000.mp4", copy / "val" / "clips" / "0000.mp4")
    manifest = json.loads((copy / "val" / "manifest.json").read_text())
    manifest["files"]["clips/0000.mp4"] = read_manifest(copy, "test")["files"]["clips/0000.mp4"]
    (copy / "val" / "manifest.json").write_text(json.dumps(manifest))
    assert duplicates(copy, ("test", "val")) == ["test/clips/0000.mp4 and val/clips/0000.mp4 are the same clip"]


def test_text_limit_is_30_percent_where_that_is_three_standard_errors() -> None:
    assert text_limit(1008) == 0.30
    assert text_limit(200) == pytest.approx(0.25 + 3 * 0.0306, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "letter"),
    [("A", "A"), (" B\n", "B"), ("C.", "C"), ("(D)", "D"), ("B. red circle", "B"), ("A: x", "A"), ("A) one\ntwo", "A")]
    + [(text, None) for text in ("", "a", "E", "AB", "A red circle", "The answer is A", "red circle", "A B", "AA.")],
)  # fmt: skip
def test_letters_are_read_exactly(text: str, letter: str | None) -> None:
    assert letter_of(text) == letter


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "made"), "--split", "guard", "--questions", "12", "--seed", "5"])
    made = json.loads(capsys.readouterr().out.splitlines()[-1])["splits"]["guard"]
    assert (made["questions"], made["seed"], made["made"]) == (12, 5, True)
    main([str(tmp_path / "made"), "--split", "guard", "--verify"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["splits"]["guard"]["sha256"] == made["sha256"]
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "made"), "--verify"])
    assert stop.value.code == 2
    assert "holds no split 'test'" in capsys.readouterr().err


def test_a_row_is_read_back_as_it_was_written(folder: Path) -> None:
    row = json.loads((folder / "guard" / "questions.jsonl").read_text().splitlines()[0])
    item = item_of(folder, row)
    assert (item.identity, item.family, item.frames, item.world) == (row["id"], row["family"], 8, row["world"])
    assert item.question.options[item.question.answer] == row["options"]["ABCD".index(row["answer"])]
