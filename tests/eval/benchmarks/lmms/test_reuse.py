"""Reading ahead and encoding a video once: the same answers, tokens and records as the plain way, with fewer passes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.benchmarks.launching import prepare
from eval.benchmarks.lmms import models, worker
from eval.benchmarks.lmms.harness import evaluate
from eval.benchmarks.lmms.questions import video_of
from eval.benchmarks.lmms.reuse import KeptVideo, KeptVideos, ReusingSlot
from eval.benchmarks.run import make_job, parser
from holitom.compressor import Compressor
from holitom.encoded_video import EncodedVideo
from holitom.methods import available_methods
from holitom.ops.selection import all_tokens
from holitom.tokens import CompressedTokens
from holitom.watching import watched
from llava.errors import VideoError
from tests.eval.benchmarks.lmms_runs import (
    FRAMES,
    HOLITOM,
    command,
    enter,
    run_here,
    same_but_times,
    write_config,
)

PLAIN: dict[str, Any] = {"reuse": False, "prefetch": 0}
METHODS: list[dict[str, Any]] = [
    {},
    {"method": "holitom", "retain_ratio": 0.2, "merge_layer": 3},  # acts inside the LLM as well
    {"method": "fastv"},  # reads the question, inside the LLM
    {"method": "prunevid", "inner": {"layer": 2}},  # both
    {"method": "earlytom", "tower_layers": [0], "inner": None},  # acts inside the tower as well
    {"method": "fastvid", "min_segments": 2},  # leaves gaps in the positions
]


class Harness:
    """Questions as lmms-eval asks them, four about two videos, given to one model after the other."""

    def __init__(self, tiny: Path, folder: Path) -> None:
        self.tiny, self.folder, self.made = tiny, folder, 0
        self.requests: list[Any] = []
        self.task_dict: Any = None
        self.open: list[Any] = []

    def model(self, **arguments: Any) -> Any:
        self.made += 1
        made = models.LlavaOneVisionCompressed(  # type: ignore[attr-defined]
            pretrained=str(self.tiny), answers=str(self.folder / str(self.made)),
            **{"model.num_frames": FRAMES, **arguments},
        )  # fmt: skip
        self.open.append(made)
        if self.task_dict is not None:
            made.task_dict = self.task_dict
        return made

    def ask(self, model: Any, requests: list[Any] | None = None) -> dict[Any, dict[str, Any]]:
        """Everything that is kept of each answer but its seconds."""
        asked = self.requests if requests is None else requests
        texts = model.generate_until(asked)
        assert texts == [model.served.entries[request.args[4], request.args[3]].answer for request in asked]
        entries = model.served.entries.values()
        return {(e.task, e.doc_id): {**asdict(e), "seconds": 0} for e in entries}


@pytest.fixture
def harness(tiny: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    enter(benchmarks, tmp_path / "cache", monkeypatch)
    made = Harness(tiny, tmp_path)
    model = made.model()

    def collect(requests: list[Any]) -> list[str]:
        made.requests = [request for number, request in enumerate(requests) if number % 3 < 2]  # of three a video
        for request in made.requests:
            request.args[1]["max_new_tokens"] = 4  # the tiny model never ends by itself
        return ["A"] * len(requests)

    model.generate_until = collect
    evaluate(model, "llava_onevision", ["videomme"])
    made.task_dict = model.task_dict
    yield made
    for model in made.open:
        model.close()


def spread(requests: list[Any]) -> list[Any]:
    """The same questions, no two in a row about one video."""
    half = len(requests) // 2
    return [request for pair in zip(requests[:half], requests[half:], strict=True) for request in pair]


def test_the_same_answers_with_a_pass_for_every_video(harness: Harness) -> None:
    """In the harness' order, and with the other video in between, whose compression must leave the kept one alone."""
    for method in METHODS:
        plain = harness.model(**PLAIN, **method)
        expected = harness.ask(plain)
        assert plain.served.encoded == len(expected) == 4
        new = harness.model(prefetch=2, **method)
        assert harness.ask(new, spread(harness.requests)) == expected, method
        assert new.served.encoded == 2
        assert len({entry["answer"] for entry in expected.values()}) > 1
    for ways, passes in (({}, 2), ({"reuse": False, "prefetch": 3}, 4), ({"prefetch": 0}, 2)):  # of the last method
        other = harness.model(**ways, **method)
        assert harness.ask(other) == expected
        assert other.served.encoded == passes


def test_every_method_says_whether_the_question_matters() -> None:
    """All of ours see the video alone before the LLM; a new one must say so, or is never reused."""
    said = {name: config().build().question_free for name, config in available_methods().items()}
    assert said == dict.fromkeys(said, True)
    assert Compressor(None, None).question_free
    assert not Compressor(Counting(), None).question_free
    assert not watched(Compressor(Counting(), None)).question_free
    assert watched(Compressor(None, None)).question_free


class Counting:
    """An outer stage that says nothing, and whose tokens depend on more than the video."""

    signals: tuple[str, ...] = ()
    keeps_positions = False

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, video: EncodedVideo) -> CompressedTokens:
        self.calls += 1
        kept = all_tokens(video.features)
        return CompressedTokens(kept.features * (-1) ** self.calls, kept.index, kept.details)

    def most_kept(self, frames: int, tokens_per_frame: int) -> int:
        return frames * tokens_per_frame


def test_a_stage_that_says_nothing_runs_for_every_question(harness: Harness) -> None:
    found = []
    for ways in (PLAIN, {}):
        model = harness.model(**ways)
        model._compressor.remove()
        model._compressor = Compressor(Counting(), None).apply(model.model)
        model._slot = model.model.visual_compressor = ReusingSlot(model._compressor, KeptVideos())
        found.append(harness.ask(model))
        assert (model._compressor.outer.calls, model.served.encoded) == (4, 4)
    assert found[0] == found[1]


def test_an_error_comes_with_its_own_question(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second video is read while the first one is asked about; its damage is told when its turn has come."""
    broken = video_of(harness.requests[-1], harness.task_dict["videomme"]["test"][5])
    model = harness.model(prefetch=3)
    load = model._load

    def failing(path: Path) -> Any:
        if path == broken:
            raise VideoError(f"{path}: it is damaged")
        return load(path)

    model._load = failing
    with pytest.raises(VideoError, match=r"is damaged \(task videomme, question 3;"):
        model.generate_until(harness.requests)
    log = [json.loads(line)["doc_id"] for line in (harness.folder / str(harness.made) / "rank-0.jsonl").open()]
    assert log == [0, 1]
    counting = harness.model(prefetch=3, on_bad_video="count")
    counting._load = failing
    assert counting.generate_until(harness.requests)[2:] == ["", ""]
    assert [entry.bad_video is not None for entry in counting.served.entries.values()] == [False] * 2 + [True] * 2


def test_a_video_is_read_once_and_answers_in_the_log_cost_nothing(harness: Harness) -> None:
    model = harness.model()
    reads: Counter[Path] = Counter()
    load = model._load
    model._load = lambda path: (reads.update([path]), load(path))[1]
    expected = harness.ask(model)
    assert sorted(reads.values()) == [1, 1]
    model.close()
    harness.made -= 1  # the same log
    again = harness.model()
    again._load = None
    assert harness.ask(again) == expected
    assert (again.served.resumed, again.served.encoded) == (4, 0)


def video(numbers: int) -> KeptVideo:
    tokens = all_tokens(torch.zeros(1, 1, numbers))
    return KeptVideo(None, tokens, "one_token")  # type: ignore[arg-type]


def test_kept_videos_stay_within_their_bound() -> None:
    size = video(100).size
    assert size >= 400
    kept = KeptVideos(2 * size)
    for name in "ab":
        kept.add(name, video(100))
    assert kept.get("a") is not None
    kept.add("c", video(100))
    assert [name in kept for name in "abc"] == [True, False, True]
    kept.add("d", video(1000))
    assert [name in kept for name in "acd"] == [True, True, False]


@pytest.fixture
def arguments(tiny: Path, benchmarks: Path, tmp_path: Path) -> Callable[..., list[str]]:
    config = write_config(tmp_path / "config.yaml", HOLITOM)

    def made(name: str, tasks: str, *more: str) -> list[str]:
        return command(config, tiny, benchmarks, tasks, tmp_path / name, *more)

    return made


def run_shares(patch: pytest.MonkeyPatch, words: list[str], ranks: int) -> None:
    """As ``--num-processes`` does it, one process after the other and all in this one."""
    options = parser().parse_args([*words, "--num-processes", str(ranks)])
    job = make_job(options)
    prepare(job, options.resume)
    enter(options.data, job.folder / worker.ANSWERS / worker.CACHE, patch)
    for rank in range(ranks):
        patch.setenv("RANK", str(rank))
        patch.setenv("WORLD_SIZE", str(ranks))
        worker.answer_share(job, rank)
    patch.delenv("RANK")
    patch.delenv("WORLD_SIZE")
    worker.score(job)


def test_files_of_a_run_are_those_of_the_plain_way(
    arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples, result and records; with one process, and with three, for one of which no video is left."""
    tasks = "videomme"
    plain, _ = run_here(monkeypatch, arguments("plain", tasks, "--save-records", "--no-reuse", "--prefetch", "0"))
    new, _ = run_here(monkeypatch, arguments("new", tasks, "--save-records"))
    run_shares(monkeypatch, arguments("shared", tasks, "--save-records"), 3)
    counts = [plain["times"]["videos_encoded"], new["times"]["videos_encoded"]]
    counts.append(json.loads((tmp_path / "shared/result.json").read_text())["times"]["videos_encoded"])
    assert counts == [6, 2, 2]
    for other in ("new", "shared"):
        same_but_times(tmp_path / "plain", tmp_path / other)
        files = sorted(path.name for path in (tmp_path / "plain/records").iterdir())
        assert len(files) == 6
        for name in files:
            assert (tmp_path / "plain/records" / name).read_bytes() == (
                tmp_path / other / "records" / name
            ).read_bytes()
    shares = [json.loads((tmp_path / f"shared/answers/share-{rank}.json").read_text()) for rank in range(3)]
    assert sorted(len(share["entries"]) for share in shares) == [0, 3, 3]
