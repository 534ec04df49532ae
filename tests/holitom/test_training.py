"""Training with compression on: labels of the long prompt, gradients, and adapters, in every runtime alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holitom import available_methods, holitom
from holitom.settings import from_mapping
from llava.constants import IGNORE_INDEX
from llava.errors import InputError
from tests.llava.test_against_transformers import expanded
from tests.tiny_models import VIDEO_ID, hook_count, hugging_face_model, prompt, video

METHODS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "evs": {},
    "fastv": {},
    "pdrop": {"drop_layers": [1, 3, 4]},
    "prunevid": {"inner": {"layer": 2}},
    "holitom": {"outer": {"retain_ratio": 0.2}, "inner": {"merge_layer": 4}},
}
FRAMES, BEFORE, AFTER = 4, 5, 9
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def hugging(checkpoint) -> nn.Module:
    return hugging_face_model(checkpoint)


def inputs_of(kind: str) -> tuple[Tensor, dict[str, Any]]:
    """Ids and the other arguments of one prompt with a video, for our runtime or transformers' class."""
    ids, clip = prompt(BEFORE, "video", AFTER), video(FRAMES, cuts=(2,))
    if kind == "ours":
        return ids, {"images": [clip], "modalities": ["video"]}
    return expanded(ids, [FRAMES * 196 + 1], [VIDEO_ID]), {"pixel_values_videos": clip[None]}


def labels_of(ids: Tensor) -> Tensor:
    """All text after the video, and what stands before it."""
    return torch.where(ids < 0, IGNORE_INDEX, ids)


def wanted_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean over the text whose token before is in the prompt, from the logits alone: text ends are never compressed."""
    ends = [(logits[0, : BEFORE - 1], ids[0, 1:BEFORE]), (logits[0, -AFTER - 1 : -1], ids[0, -AFTER:])]
    scores, wanted = (torch.cat(parts) for parts in zip(*ends, strict=True))
    return torch.nn.functional.cross_entropy(scores.float(), wanted)


class Adapted(nn.Module):
    """Stands for peft: ``get_base_model`` gives the model, and ``forward`` calls its forward past its hooks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model

    def get_base_model(self) -> nn.Module:
        return self.base_model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)


class LowRank(nn.Module):
    """A linear layer with a low-rank update that starts at nothing."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
        self.up = nn.Parameter(torch.zeros(base.out_features, 2))

    def forward(self, states: Tensor) -> Tensor:
        return self.base(states) + states @ self.down.T @ self.up.T


def adapted(model: nn.Module, decoder: nn.Module) -> Adapted:
    """Low-rank updates on queries and values of every layer; all else is frozen."""
    model.requires_grad_(False)
    for layer in decoder.layers:
        layer.self_attn.q_proj = LowRank(layer.self_attn.q_proj)
        layer.self_attn.v_proj = LowRank(layer.self_attn.v_proj)
    return Adapted(model)


def decoder_of(model: nn.Module, kind: str) -> nn.Module:
    return model.model if kind == "ours" else model.model.language_model


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["ours", "transformers"])
def test_the_loss_is_that_of_the_logits(kind: str, name: str, model, hugging) -> None:
    """Also where labels stand at placeholders: merged tokens have no meaning to predict, and do not count."""
    each, (ids, inputs) = model if kind == "ours" else hugging, inputs_of(kind)
    compressor = from_mapping(available_methods()[name], METHODS[name]).build()
    with compressor.applied(each), torch.no_grad():
        out = each(input_ids=ids, labels=labels_of(ids), **inputs)
        assert out.logits.shape[1] < BEFORE + AFTER + FRAMES * 196
        torch.testing.assert_close(out.loss, wanted_loss(out.logits, ids))
        masked = torch.where(ids == VIDEO_ID, IGNORE_INDEX, labels_of(ids))
        torch.testing.assert_close(each(input_ids=ids, labels=masked, **inputs).loss, out.loss)
        if kind == "transformers":
            loss, logits = each(input_ids=ids, labels=masked, return_dict=False, **inputs)[:2]
            torch.testing.assert_close(loss, wanted_loss(logits, ids))


def test_rows_with_and_without_video(hugging) -> None:
    """A left-padded batch: the mean over all rows' text, each as it is alone."""
    ids, inputs = inputs_of("transformers")
    text = prompt(7, seed=3)
    padded = torch.nn.functional.pad(text, (ids.shape[1] - 7, 0), value=256)
    mask = torch.cat([torch.ones_like(ids), (torch.arange(ids.shape[1]) >= ids.shape[1] - 7).long()[None]])
    both = torch.cat([ids, padded])
    labels = torch.where((mask == 0) | (both == VIDEO_ID), IGNORE_INDEX, both)
    labels[1, -7] = IGNORE_INDEX  # no token stands before it
    with from_mapping(available_methods()["holitom"], METHODS["holitom"]).build().applied(hugging), torch.no_grad():
        found = hugging(input_ids=both, attention_mask=mask, labels=labels, **inputs).loss
        alone = hugging(input_ids=ids, labels=labels[:1], **inputs).loss
        plain = hugging(input_ids=text, labels=text).loss
    counts = BEFORE - 1 + AFTER, 6
    torch.testing.assert_close(found, (alone * counts[0] + plain * counts[1]) / sum(counts), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_and_nothing_is_left(hugging) -> None:
    ids, inputs = inputs_of("transformers")
    own, hooks = hugging.loss_function, hook_count(hugging)
    with from_mapping(available_methods()["uniform"], {}).build().applied(hugging), torch.no_grad():
        with pytest.raises(InputError, match="labels of shape"):
            hugging(input_ids=ids, labels=ids[:, 1:], **inputs)
        with pytest.raises(InputError, match="logits_to_keep leaves 3 of"):
            hugging(input_ids=ids, labels=ids, logits_to_keep=3, **inputs)
        plain = prompt(6)
        torch.testing.assert_close(
            hugging(input_ids=plain, labels=plain).loss,
            own(hugging(input_ids=plain).logits, plain, hugging.config.text_config.vocab_size),
        )
    assert hugging.loss_function is own
    assert "_loss_function" not in vars(hugging)
    assert hook_count(hugging) == hooks


@pytest.mark.parametrize("kind", ["ours", "transformers"])
def test_gradients_reach_the_text_as_they_do_in_our_runtime(kind: str, model, checkpoint) -> None:
    each = model if kind == "ours" else hugging_face_model(checkpoint)
    ids, inputs = inputs_of(kind)
    with from_mapping(available_methods()["holitom"], METHODS["holitom"]).build().applied(each):
        each(input_ids=ids, labels=labels_of(ids), **inputs).loss.backward()
    decoder = decoder_of(each, kind)
    assert decoder.embed_tokens.weight.grad.abs().sum() > 0
    for layer in decoder.layers:
        assert layer.mlp.up_proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["ours", "transformers"])
def test_adapters(kind: str, model, checkpoint) -> None:
    """The one-liner reaches the base model; only the adapters learn, and a few steps lower the loss."""
    each = model if kind == "ours" else hugging_face_model(checkpoint)
    ids, inputs = inputs_of(kind)
    labels = labels_of(ids)
    with from_mapping(available_methods()["holitom"], METHODS["holitom"]).build().applied(each), torch.no_grad():
        before = each(input_ids=ids, labels=labels, **inputs).loss
    wrapped = adapted(each, decoder_of(each, kind))
    assert holitom(wrapped, retain_ratio=0.2, merge_layer=4) is wrapped
    with torch.no_grad():
        torch.testing.assert_close(wrapped(input_ids=ids, labels=labels, **inputs).loss, before)
    learning = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.02)
    for _ in range(4):
        optimizer.zero_grad()
        loss = wrapped(input_ids=ids, labels=labels, **inputs).loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in learning)
        optimizer.step()
    assert loss < before - 0.05
    assert sum(wrapped.visual_compressor.record.tokens_after_outer) < FRAMES * 196
    wrapped.visual_compressor.remove()
    assert each.visual_compressor is None if kind == "ours" else "visual_compressor" not in vars(each)
