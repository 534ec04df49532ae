"""One forward pass per question answers what ``generate`` answers, for every method, with shared encoding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.instruments.answering import applied, prompt_ids
from eval.paper.formula import paper_flops
from eval.synthetic.answers.evaluate import Answerer, by_clip, grey, needed_signals
from holitom import load_config
from llava.constants import DEFAULT_IMAGE_TOKEN
from tests.eval.synthetic.conftest import rendered
from tests.tiny_models import hook_count

FRAMES = 4
FILES = sorted(Path("configs/tiny").glob("*_r15.yaml"))
FILES += [Path("configs/tiny") / f"{name}.yaml" for name in ("vanilla", "fastv", "pdrop", "dycoke_r25", "holitom_r10")]


@pytest.fixture(scope="module")
def answerer(tiny):
    found = Answerer(*tiny, needed_signals(load_config(path).build() for path in FILES))
    yield found
    found.close()


class LastLogits:
    """Logits of the last position at every call of the model's head."""

    def __init__(self, model):
        self.seen = []
        self.handle = model.lm_head.register_forward_hook(lambda m, i, output: self.seen.append(output[0, -1].clone()))

    def __enter__(self):
        return self.seen

    def __exit__(self, *_):
        self.handle.remove()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_answer_is_the_first_token_of_generate(tiny, answerer, path):
    """The encoding is shared and so is what the outer stage made of it; neither may change an answer."""
    tokenizer, model, _ = tiny
    config = load_config(path)
    frames, items = rendered(1, FRAMES)
    assert len(items) == 2
    video = answerer.encoded(frames)
    with LastLogits(model) as ours:
        found = answerer.answers(config.build(), video, items)
    compressor = config.build()
    for item, answer, logits in zip(items, found, ours, strict=True):
        with applied(compressor, model), LastLogits(model) as theirs:
            ids = prompt_ids(tokenizer, f"{DEFAULT_IMAGE_TOKEN}\n{item.question.prompt}")
            inputs = {"images": [video.pixels], "modalities": ["video"]}
            new = model.generate(ids, **inputs, max_new_tokens=1, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        torch.testing.assert_close(logits, theirs[0], atol=1e-5, rtol=0)
        assert answer.answer == tokenizer.decode(new[0]).strip()
        layers = model.config.num_hidden_layers
        counts = [FRAMES * 64] * layers if compressor is None else compressor.record.tokens_per_layer(layers)
        assert (answer.before, answer.outer, answer.inside) == (FRAMES * 64, counts[0], counts[-1])
        assert answer.flops == paper_flops(counts, 128, 384)
    assert not torch.equal(ours[0], ours[1])


def test_the_tower_runs_once_for_a_clip_and_the_model_stays_as_it_was(tiny, answerer):
    model = tiny[1]
    before = hook_count(model)
    runs = []
    handle = model.get_vision_tower().register_forward_hook(lambda *_: runs.append(1))
    frames, items = rendered(2, FRAMES)
    video = answerer.encoded(frames)
    for name in ("vanilla", "holitom_r15", "visionzip_r15", "fastv"):
        answerer.answers(load_config(f"configs/tiny/{name}.yaml").build(), video, items)
    handle.remove()
    assert runs == [1]
    assert model.visual_compressor is None
    assert hook_count(model) == before


def test_an_answer_is_right_if_it_is_the_letter(tiny, answerer, monkeypatch):
    """The untrained head says what it likes; here it is made to say B."""
    tokenizer, model, _ = tiny
    frames, items = rendered(3, FRAMES)
    row = torch.zeros(model.config.vocab_size)
    row[tokenizer.convert_tokens_to_ids("B")] = 1
    monkeypatch.setattr(model.lm_head, "forward", lambda hidden: row.expand(*hidden.shape[:2], -1))
    asked = [replace(items[0], question=replace(items[0].question, answer=number)) for number in range(4)]
    found = answerer.answers(None, answerer.encoded(frames), asked)
    assert [answer.answer for answer in found] == ["B"] * 4
    assert [answer.right for answer in found] == [False, True, False, False]


def test_repetition_and_company_change_nothing(answerer):
    compressor = load_config("configs/tiny/holitom_r15.yaml").build()
    frames, items = rendered(4, FRAMES)
    other, others = rendered(5, FRAMES)
    together = answerer.answers(compressor, answerer.encoded(frames), items)
    answerer.answers(compressor, answerer.encoded(other), others)
    alone = [answerer.answers(compressor, answerer.encoded(frames), [item])[0] for item in items]
    assert together == alone


def test_grey_shows_nothing_and_clips_are_grouped():
    frames, items = rendered(6, FRAMES)
    nothing = grey(frames)
    assert (nothing.shape, nothing.dtype) == (frames.shape, np.uint8)
    assert np.unique(nothing).tolist() == [128]
    _, others = rendered(7, FRAMES)
    mixed = [items[0], others[0], items[1]]
    assert [(clip, [item.identity for item in group]) for clip, group in by_clip(mixed)] == [
        ("clip6.mp4", [items[0].identity, items[1].identity]),
        ("clip7.mp4", [others[0].identity]),
    ]
