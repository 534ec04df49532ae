"""A watched compressor does what it did before and puts on record what pictures show; an unwatched one pays nothing."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from holitom.compressor import Compressor
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops.similarity import similarity_and_norms
from holitom.watching import watched
from llava.model.builder import load_pretrained_model
from llava.model.visual_inputs import VisualEncoder
from tests.holitom.test_every_method import METHODS, small
from tests.tiny_models import greedily, hook_count, prompt, video

greedy = partial(greedily, steps=2)


@pytest.fixture(scope="module")
def model(checkpoint):
    """One tiny model for all tests of this file."""
    return load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")[1]


def encoded(model, clip):
    with torch.no_grad():
        return VisualEncoder(model.get_model(), model.config, None).encode_frames(clip)


@pytest.mark.parametrize("name", [*METHODS, None])
def test_the_same_answers_with_more_on_record(model, name: str | None) -> None:
    clip = video(5, cuts=(2,))
    ids, inputs = prompt(5, "video", 9), {"images": [clip], "modalities": ["video"]}
    plain = Compressor(None, None) if name is None else small(name)
    with plain.applied(model):
        want, before = greedy(model, ids, **inputs), plain.record
    assert before.videos[0].observed is None
    seen = watched(Compressor(None, None) if name is None else small(name))
    assert seen.keeps_positions == plain.keeps_positions
    with seen.applied(model):
        got, record = greedy(model, ids, **inputs), seen.record
    assert torch.equal(torch.stack(got.logits), torch.stack(want.logits))
    assert torch.equal(record.videos[0].index, before.videos[0].index)
    assert hook_count(model) == 0
    observed = record.videos[0].observed
    assert observed.received_attention.shape == (5, 196)
    similarity, _ = similarity_and_norms(encoded(model, clip))
    torch.testing.assert_close(observed.similarity, similarity, rtol=1e-4, atol=1e-4)


def test_holitom_shows_the_similarity_it_decided_by(model) -> None:
    with torch.no_grad(), watched(small("holitom")).applied(model) as compressor:
        model(prompt(5, "video", 9), images=[video(4)], modalities=["video"])
        tokens = compressor.record.videos[0]
    assert tokens.observed.similarity is tokens.details.similarity


def test_received_attention_is_the_very_signal_of_the_method(model, monkeypatch) -> None:
    handed, compress = [], OuterCompression.__call__

    def spy(self, features, attention, order):
        handed.append(attention)
        return compress(self, features, attention, order)

    monkeypatch.setattr(OuterCompression, "__call__", spy)
    with torch.no_grad(), watched(small("holitom")).applied(model) as compressor:
        model(prompt(5, "video", 9), images=[video(4)], modalities=["video"])
        observed = compressor.record.videos[0].observed
    assert torch.equal(observed.received_attention, handed[0])


@pytest.mark.parametrize("name", METHODS)
def test_budget_and_signals_are_the_methods(name: str) -> None:
    plain, seen = small(name).outer, watched(small(name)).outer
    assert seen.most_kept(9, 196) == (9 * 196 if plain is None else plain.most_kept(9, 196))
    own = () if plain is None else plain.signals
    assert set(seen.signals) == {*own, "received_attention"}
    assert len(seen.signals) == len(set(seen.signals))
