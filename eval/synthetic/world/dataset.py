"""The benchmark ``synthvid``: rendered clips with questions, made on this machine and the same for everyone.

    python -m eval.synthetic.world.dataset outputs/synthvid                  # all splits
    python -m eval.synthetic.world.dataset outputs/synthvid --split guard    # one of them
    python -m eval.synthetic.world.dataset outputs/synthvid --verify         # every file as it was written?

Each split has a folder with ``questions.jsonl``, ``clips/*.mp4`` (H.264, 128 x 128, 4 frames a second) and
``manifest.json``, the SHA-256 of every file. A split that is there and whole is not made again. ``README.md`` makes the
folder a local data set of the ``datasets`` library, which lmms-eval reads (``eval/synthetic/task``).
"""

import ast
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.fingerprints import digest
from eval.instruments.record import write_whole
from eval.synthetic.world.clips import write_video
from eval.synthetic.world.items import Item, item_of
from eval.synthetic.world.questions import Question
from eval.synthetic.world.selection import LETTERS, SPLITS, Clip, Split, choose_clips
from llava.errors import InputError

FOLDER = "outputs/synthvid"
VARIABLE = "SYNTHVID_DATA"  # environment variable that names another folder
_SOURCES = ("events", "raster", "questions", "selection", "clips")
_MANIFEST, _QUESTIONS = "manifest.json", "questions.jsonl"
_SEEDS = 2**32  # the sum with the splits' own constant stays a whole number that NumPy takes


def data_folder() -> Path:
    """The folder that ``SYNTHVID_DATA`` names, else ``outputs/synthvid``."""
    return Path(os.environ.get(VARIABLE) or FOLDER)


def remedy(folder: Path, split: str) -> str:
    """How to make a split."""
    return f"make it with: python -m eval.synthetic.world.dataset {folder} --split {split}"


def code_sha256() -> str:
    """Of the code that decides the data; comments and layout do not count."""
    texts = [Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in _SOURCES]
    return digest([ast.unparse(ast.parse(text)) for text in texts])


def _known(split: str) -> Split:
    if split not in SPLITS:
        raise InputError(f"split = {split!r} is unknown: it must be one of {', '.join(SPLITS)}")
    return SPLITS[split]


def _row(split: Split, place: int, clip: Clip, question: Question) -> dict[str, Any]:
    return {
        "id": f"{split.name}-{place:04d}-{question.family}",
        "clip": f"{split.name}/clips/{place:04d}.mp4",
        "family": question.family,
        "question": question.text,
        "options": list(question.options),
        "answer": LETTERS[question.answer],
        "frames": split.samplings[0],
        "world": clip.number,
    }


def _fill(folder: Path, split: Split, questions: int, seed: int) -> None:
    rows = []
    for place, clip in enumerate(choose_clips(split, questions, seed)):
        write_video(folder / "clips" / f"{place:04d}.mp4", clip.world, split.file_frames)
        rows += [_row(split, place, clip, question) for question in clip.questions]
    (folder / _QUESTIONS).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    made = {"split": split.name, "questions": questions, "seed": seed, "code_sha256": code_sha256(), "files": files}
    (folder / _MANIFEST).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def _write_readme(folder: Path) -> None:
    """Name the splits that are there as configurations of one data set."""
    lines = ["---", "configs:"]
    for name in sorted(path.parent.name for path in folder.glob(f"*/{_QUESTIONS}")):
        lines += [f"- config_name: {name}", "  data_files:", "  - split: test", f"    path: {name}/{_QUESTIONS}"]
    lines += ["---", "# synthvid", "", "Made by `python -m eval.synthetic.world.dataset`; every clip is rendered.", ""]
    write_whole(folder / "README.md", "\n".join(lines))


def read_manifest(folder: Path, split: str) -> dict[str, Any]:
    """What a split was made with, and the hashes of its files.

    Raises:
        InputError: if the split is not there, or its manifest cannot be read.
    """
    path = folder / _known(split).name / _MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no split {split!r} of synthvid: {remedy(folder, split)}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["files"][_QUESTIONS], manifest["seed"], manifest["questions"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: delete {path.parent} and {remedy(folder, split)}") from None
    return manifest


def verify(folder: Path, split: str) -> dict[str, Any]:
    """The manifest of a split whose every file is as it was written.

    Raises:
        InputError: naming the file that is missing or differs, or if other code made the split.
    """
    manifest = read_manifest(folder, split)
    for name, sha256 in manifest["files"].items():
        path = folder / split / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            state = "differs from its manifest" if path.is_file() else "is missing"
            raise InputError(f"{path} {state}: delete {folder / split} and {remedy(folder, split)}")
    if manifest.get("code_sha256") != code_sha256():
        raise InputError(f"{folder / split} was made by other code than this: {remedy(folder, split)}")
    return manifest


def _is_made(folder: Path, split: str, questions: int, seed: int) -> bool:
    try:
        manifest = verify(folder, split)
    except InputError:
        return False
    return (manifest["questions"], manifest["seed"]) == (questions, seed)


def make_split(folder: Path, split: str, questions: int | None = None, seed: int = 0) -> bool:
    """Make a split, unless it is there and whole; a damaged one and one of other arguments are replaced.

    Args:
        folder: of the data set.
        split: its name.
        questions: how many; by default the split's own number.
        seed: decides every question and pixel.

    Returns:
        Whether it had to be made.

    Raises:
        InputError: for a number out of range, or a folder that holds something else.
    """
    spec = _known(split)
    questions = spec.questions if questions is None else questions
    if questions < len(spec.families):
        raise InputError(f"questions = {questions} is too few for {split}: at least {len(spec.families)}, one a family")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"seed = {seed} is out of range: take one from 0 to {_SEEDS - 1}")
    target = folder / split
    if target.exists() and not (target / _MANIFEST).is_file():
        raise InputError(f"{target} holds something else than a split of synthvid: name another folder")
    if _is_made(folder, split, questions, seed):
        _write_readme(folder)
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{split}-", dir=folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder") from None
    try:
        _fill(part, spec, questions, seed)
        part.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _write_readme(folder)
    return True


def load_questions(folder: str | os.PathLike[str], split: str) -> list[Item]:
    """The questions of a split, in order, after a look at every file.

    Raises:
        InputError: if the split is missing, damaged or made by other code; the message tells the command that makes it.
    """
    root = Path(folder)
    verify(root, split)
    rows: Iterable[Any] = map(json.loads, (root / split / _QUESTIONS).read_text(encoding="utf-8").splitlines())
    return [item_of(root, row) for row in rows]


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=data_folder(), help=f"default: {FOLDER}")
    parser.add_argument("--split", action="append", choices=tuple(SPLITS), help="may be repeated (default: all)")
    parser.add_argument("--questions", type=int, help="in all (default: the split's own number)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verify", action="store_true", help="write nothing, look at every file")
    options = parser.parse_args(arguments)
    report = {}
    for split in options.split or SPLITS:
        start = time.perf_counter()
        made = not options.verify and make_split(options.folder, split, options.questions, options.seed)
        manifest = verify(options.folder, split)
        clips, seconds = len(manifest["files"]) - 1, round(time.perf_counter() - start, 1)
        state = f"made in {seconds} s" if made else "whole"
        print(f"{split}: {manifest['questions']} questions about {clips} clips, {state}")
        size = sum((options.folder / split / name).stat().st_size for name in manifest["files"])
        report[split] = {
            "questions": manifest["questions"],
            "clips": clips,
            "bytes": size,
            "seed": manifest["seed"],
            "made": made,
            "seconds": seconds,
            "sha256": digest(manifest["files"]),
        }
    print(json.dumps({"data": str(options.folder), "splits": report, **provenance()}))


if __name__ == "__main__":
    main()
