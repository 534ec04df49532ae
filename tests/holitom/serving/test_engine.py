"""What ``CompressedLLM`` does around vLLM's engine, with an engine that repeats what it was asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holitom.serving import CompressedLLM, VideoRequest, engine, plugin
from llava.errors import InputError
from tests.holitom.serving.serving_cases import METHODS, frames


class EchoEngine:
    """Takes prompts as ``vllm.LLM`` does and gives their lengths and parameters back, in the order of their numbers."""

    def __init__(self, model: str, max_model_len: int = 4096, **arguments: Any) -> None:
        self.model, self.arguments, self.queue, self.waits = model, arguments, [], []
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=max_model_len))

    def enqueue(self, prompt: dict[str, Any], params: Any, use_tqdm: bool) -> list[str]:
        self.queue.append((prompt["prompt_embeds"].shape[0], params))
        return [f"{len(self.queue)}-abc"]

    def wait_for_completion(self, use_tqdm: bool) -> list[Any]:
        self.waits.append(len(self.queue))
        done, self.queue = self.queue, []
        return done


@pytest.fixture
def llm(served_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CompressedLLM:
    monkeypatch.setattr(engine, "require_vllm", lambda: SimpleNamespace(LLM=EchoEngine))
    return CompressedLLM(served_checkpoint, "float32", "cpu", cache_folder=tmp_path, max_model_len=300)


def requests() -> list[VideoRequest]:
    """Two videos in turn, of 3 and 2 frames; a question of ``number`` letters."""
    videos = [frames(3, 1), frames(2, 2)]
    return [VideoRequest(videos[number % 2], "a" * number, METHODS["uniform"]) for number in range(1, 6)]


def test_the_engine_is_vllm_s_with_the_checkpoint_s_decoder(llm: CompressedLLM, tmp_path: Path) -> None:
    assert Path(llm.llm.model).parent == tmp_path
    assert llm.llm.arguments == {"enable_prompt_embeds": True, "dtype": "float32"}


def test_answers_come_in_the_order_of_the_requests(llm: CompressedLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are worked on one after the other, so prompts reach the engine in another order, here two at a time."""
    monkeypatch.setattr(engine, "WAVE", 2)
    asked = requests()
    names = [f"parameters {number}" for number in range(len(asked))]
    answers = llm.generate(asked, names)
    assert [params for _, params in answers] == names
    alone = [llm.generate(one)[0][0] for one in asked]
    assert [length for length, _ in answers] == alone
    assert llm.llm.waits[:3] == [2, 2, 1]


def test_parameters_for_all_or_for_each(llm: CompressedLLM) -> None:
    assert {params for _, params in llm.generate(requests(), 7)} == {7}
    with pytest.raises(InputError, match="2 sampling_params for 5 requests"):
        llm.generate(requests(), [1, 2])


def test_a_prompt_without_room_is_told_and_leaves_nothing_behind(llm: CompressedLLM) -> None:
    with pytest.raises(InputError, match=r"request 1: the prompt has .* max_model_len = 300"):
        llm.generate([requests()[0], VideoRequest(frames(2, 2), "?")])
    assert llm.llm.queue == []
    assert len(llm.generate(requests())) == 5


@pytest.mark.parametrize("name", ["model", "enable_prompt_embeds"])
def test_what_the_class_decides_is_refused(served_checkpoint: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} = 1 is decided by the checkpoint"):
        engine.decoder_engine(served_checkpoint, "float32", None, **{name: 1})


def test_a_missing_vllm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs vllm, which is not installed here: pip install 'holitom\[vllm\]'"):
        plugin.require_vllm()


def test_an_install_that_vllm_s_processes_would_not_find_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(plugin.metadata, "entry_points", lambda group: SimpleNamespace(names=set()))
    with pytest.raises(InputError, match="finds no entry point of holitom"):
        plugin.require_vllm()
