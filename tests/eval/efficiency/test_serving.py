"""Questions per minute of several ways: the requests they share, the arithmetic, and what is refused at once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eval.efficiency import serving
from eval.efficiency.serving import Settings, main, make_requests, measure
from holitom.serving import plugin
from holitom.serving.requests import video_key


def settings(**changes: Any) -> Settings:
    return Settings(**{
        "config": None, "requests": 6, "videos": 4, "frames": 3, "new_tokens": 2, "repetitions": 2, **changes
    })  # fmt: skip


def test_requests_are_about_as_many_videos_as_asked() -> None:
    requests = make_requests(settings())
    keys = [video_key(request.video, 3) for request in requests]
    assert len(set(keys)) == 4
    assert keys[0] != keys[1]
    assert keys[0] == keys[4]
    assert len({len(request.question) for request in requests}) > 2
    assert all(request.video.shape[0] == 3 for request in requests)


def test_rates_are_requests_per_minute_and_answers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(serving, "timed", lambda work: (work(), clock[0])[1])

    def way(seconds: float, last: int) -> Any:
        def answer() -> list[list[int]]:
            clock[0] = seconds
            return [[1], [2], [last]]

        return answer

    prompts = [(number, SimpleNamespace(embeds=torch.zeros(length, 2))) for number, length in enumerate((5, 9, 7))]
    ways = SimpleNamespace(
        settings=settings(), requests=[0, 1, 2], maker=SimpleNamespace(prompts=lambda requests: prompts),
        loop=way(6.0, 3), loop_shared=way(3.0, 3), vllm=way(1.0, 4),
    )  # fmt: skip
    found = measure(ways)  # type: ignore[arg-type]
    rates = {name: value["median"] for name, value in found["questions_per_minute"].items()}
    assert rates == {"loop": 30.0, "loop_shared": 60.0, "vllm": 180.0}
    assert found["speedup_over_loop"]["vllm"]["median"] == 6.0
    assert found["equal_answers"] == {"loop": 3, "loop_shared": 3, "vllm": 2}
    assert found["prompt_tokens"] == [5, 9]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--videos", "0"], "--videos = 0 is out of range: it must be at least 1"),
        (["--config", "tiny/holitom_r15"], "use holitom_without_inner_r15"),
        ([], "needs vllm, which is not installed"),
    ],
)
def test_mistakes_are_told_before_any_work(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert words in capsys.readouterr().err
