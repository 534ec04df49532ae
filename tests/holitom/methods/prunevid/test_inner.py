"""PruneVid's inner stage equals a reference without padding, cache or hooks; groups come from the outer stage."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from holitom.compressor import Compressor
from holitom.hooks.decoder import staged, stages
from holitom.methods.prunevid import PruneVidConfig, PruneVidOuter
from holitom.methods.prunevid import inner as prunevid_inner
from holitom.methods.prunevid.inner import question_pruning
from holitom.ops.pruning import best_of_groups
from llava.errors import InputError
from tests.references import flash_stub
from tests.references.inner_checks import LAYERS, PROMPTS, assert_close, make_prompt, tiny_model
from tests.references.prunevid_inner import NaivePruneVid
from tests.tiny_models import prompt as text_prompt
from tests.tiny_models import video

ATTENTIONS = ["sdpa", "eager", "stub"]
STEPS = 5


def plain(prompt, **others):
    return {**{name: value for name, value in prompt.arguments().items() if name != "video_spans"}, **others}


def outer_record(prompt, pattern: list[int]) -> tuple[SimpleNamespace, list[list[list[int]]]]:
    """A record as of an outer stage with a newline at the end of each video, and the groups per row and span."""
    videos, rows = [], []
    for _, spans in prompt.rows:
        rows.append([])
        for start, stop in spans:
            names = sorted((pattern * 20)[: stop - start - 1])
            details = SimpleNamespace(group=torch.tensor(names), tokens_per_frame=4)
            videos.append(SimpleNamespace(index=torch.arange(stop - start - 1), details=details, every_row=False))
            rows[-1].append([*names, -1])
    return SimpleNamespace(videos=videos, newline_mode="one_token"), rows


def check(
    name: str, layer: int = 2, attention: str = "sdpa", pattern: list[int] | None = None, masked: bool = True
) -> None:
    """Prefill, greedy decoding, kept places, scores and cache lengths."""
    model, prompt, inner = tiny_model(attention), make_prompt(name), question_pruning(layer, 0.4)
    groups = [[[0] * (stop - start) for start, stop in spans] for _, spans in prompt.rows]
    if pattern is not None:
        inner.outer, groups = outer_record(prompt, pattern)
    options = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "output_logits": True}
    with inner.applied(model.model):
        logits = model(**prompt.arguments(masked)).logits
        out = model.generate(**prompt.arguments(masked), **options, return_dict_in_generate=True)
    naive = NaivePruneVid(tiny_model(), layer, 40)
    for row, (states, spans) in enumerate(prompt.rows):
        wanted, kept, scores = naive.run_pruned(states, spans, groups[row])
        padding = prompt.padding[row]
        assert_close(logits[row, logits.shape[1] - len(kept) :], wanted, f"row {row}")
        assert [place - padding for place in inner.last.cpu_kept[row].tolist() if place >= 0] == kept
        assert (inner.last.cpu_scores[row, padding:].double() - torch.tensor(scores)).abs().max() < 1e-4
        answer = tiny_model().model.embed_tokens(out.sequences[row])
        forced = naive.run_pruned(torch.cat([states, answer]), spans, groups[row], kept, len(states))[0]
        assert_close(torch.stack(out.logits, dim=1)[row], forced[-STEPS - 1 : -1], f"answer {row}")
    lengths = {out.past_key_values.get_seq_length(each) for each in range(LAYERS)}
    assert lengths == {inner.last.kept.shape[1] + STEPS - 1}, "all layers forget the dropped tokens"


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("pattern", [None, [0, 1, 1, 2, 1, 4]])
@pytest.mark.parametrize("name", PROMPTS)
def test_generate(name, pattern, attention):
    check(name, attention=attention, pattern=pattern)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("layer", [0, 4])
def test_other_layers_and_no_mask(layer, attention):
    check("ragged3", layer, attention)
    check("uneven_after", layer, attention, masked=False)


def test_small_groups_leave_one_token():
    """0.4 of two tokens is cut to none, in every group."""
    check("ragged3", pattern=list(range(20)))
    model, prompt, inner = tiny_model(), make_prompt("ragged"), question_pruning(2)
    inner.outer, _ = outer_record(prompt, list(range(20)))
    with inner.applied(model.model):
        model(**prompt.arguments())
    assert inner.last.tokens_after == ((7 + 1,), (3 + 1,))
    assert inner.last.tokens_per_layer(LAYERS) == [[20] * 3 + [8] * 3, [9] * 3 + [4] * 3]


def test_best_of_groups():
    scores, group = torch.tensor([1.0, 5, 5, 2, 3, 9, 4]), torch.tensor([0, 0, 0, 2, 2, 3, 2])
    assert sorted(best_of_groups(scores, group, [1, 0, 2, 1]).tolist()) == [1, 4, 5, 6]
    assert best_of_groups(scores, group, [0, 0, 0, 0]).tolist() == []


def test_everything_kept_and_text_only_are_bitwise_the_plain_model():
    model, prompt = tiny_model(), make_prompt("ragged")
    before = model(**plain(prompt)).logits
    with question_pruning(2, 1.0).applied(model.model):
        assert torch.equal(model(**prompt.arguments()).logits, before)
    with question_pruning(2).applied(model.model):
        assert torch.equal(model(**plain(prompt, video_spans=prompt.spans[:, :0])).logits, before)
        assert not torch.equal(model(**prompt.arguments()).logits[:, -1], before[:, -1])
        with pytest.raises(RuntimeError, match="without video_spans"):
            model(**plain(prompt))
    assert torch.equal(model(**plain(prompt)).logits, before)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["single", "ragged"])
def test_positions_go_on_after_the_whole_prompt_if_none_are_given(name):
    model, prompt, token = tiny_model(), make_prompt(name), torch.ones(2, 1, dtype=torch.long)
    token, logits = token[: len(prompt.rows)], []
    mask = nn.functional.pad(prompt.mask, (0, 1), value=1)
    with question_pruning(2).applied(model.model):
        for positions in ({}, {"position_ids": torch.full_like(token, prompt.mask.shape[1])}):
            cache = DynamicCache(config=model.config)
            model(**prompt.arguments(), past_key_values=cache)
            step = {"input_ids": token, "attention_mask": mask, "past_key_values": cache, **positions}
            logits.append(model(**step).logits)
        assert torch.equal(*logits)
        with pytest.raises(RuntimeError, match="is a copy"):
            model(**{**step, "past_key_values": copy.deepcopy(cache)})
        wrong = {**step, "attention_mask": mask}
        with pytest.raises(InputError, match="columns"):
            model(**wrong)


@pytest.mark.parametrize("newline", ["one_token", "grid"])
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
def test_behind_the_outer_stage_in_a_ragged_batch(model, newline, attention):
    model.config.mm_newline_position = newline
    rows = [text_prompt(5, "video", 9, "video", 2, seed=1), text_prompt(3, "video", 4, seed=3)]
    clips = [video(4, seed=1, cuts=(2,)), video(2, seed=4), video(5, seed=9, cuts=(3,))]
    ids = torch.full((2, rows[0].shape[1]), 256)
    ids[0], ids[1, -rows[1].shape[1] :] = rows[0][0], rows[1][0]
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
    options |= {"output_logits": True, "return_dict_in_generate": True, "modalities": "video"}
    compressor = Compressor(PruneVidOuter(PruneVidConfig(0.2)), question_pruning(2))
    with compressor.applied(model):
        model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
        out = model.generate(ids, images=clips, attention_mask=ids.ne(256), **options)
        record = compressor.record
        after = [count for row in record.inner.tokens_after for count in row]
        for number, (tokens, count, kept_before) in enumerate(
            zip(record.videos, after, record.tokens_after_outer, strict=True)
        ):
            spans = [count for row in record.inner.tokens_before for count in row]
            sizes = torch.bincount(tokens.details.group).tolist()
            assert count == sum(int(size * 0.4) for size in sizes) + spans[number] - kept_before
            survivors = record.rows_kept_inside(number)
            assert torch.bincount(tokens.details.group[survivors], minlength=len(sizes)).tolist() == [
                int(size * 0.4) for size in sizes
            ]
        for number, (row, part) in enumerate(zip(rows, (clips[:2], clips[2:]), strict=True)):
            alone = model.generate(row, images=part, **options)
            for got, want in zip(out.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)
        beams = model.generate(rows[1], images=clips[2:], **options, num_beams=2)
        assert beams.sequences.shape[0] == 1


def test_a_record_of_another_prompt_is_refused():
    model, prompt = tiny_model(), make_prompt("two_videos")
    inner = question_pruning(2)
    inner.outer, _ = outer_record(make_prompt("single"), [0, 1])
    with inner.applied(model.model), pytest.raises(RuntimeError, match="encode anew"):
        model(**prompt.arguments())
    inner.outer.videos *= 3
    with inner.applied(model.model), pytest.raises(RuntimeError, match="encode anew"):
        model(**prompt.arguments())


@pytest.mark.parametrize("settings", [{"layer": -1}, {"layer": 1.0}, {"keep_ratio": 0}, {"keep_ratio": 1.1}])
def test_wrong_settings(settings):
    with pytest.raises(InputError, match=f"{next(iter(settings))} = "):
        question_pruning(**settings)
    with pytest.raises(InputError, match=r"PruneVid's inner stage = 6.*\[1, 5\]"):
        question_pruning(5).apply(tiny_model().model)


@pytest.mark.parametrize(
    ("owner", "name", "change"),
    [
        (prunevid_inner, "best_of_groups", lambda original: lambda scores, *rest: original(-scores, *rest)),
        (prunevid_inner, "text_after", lambda original: lambda spans, seq: original(spans, seq)[:1]),
        (prunevid_inner, "text_after", lambda original: lambda spans, seq: torch.arange(spans[0][1], seq)),
        (prunevid_inner, "places_in_span", lambda original: lambda *args: original(*args) + 1),
        (stages, "shrink_cache", lambda original: lambda *args: None),
        (stages, "shrink_cache", lambda original: lambda call, cache, layers: original(call, cache, layers - 1)),
        (staged, "shrunk_arguments", lambda original: lambda call, past, inputs, kwargs: kwargs),
        (staged, "shrunk_arguments", lambda original: lambda *args: {**original(*args), "attention_mask": None}),
    ],
)
def test_mutations_are_caught(monkeypatch, owner, name, change):
    monkeypatch.setattr(owner, name, change(getattr(owner, name)))
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check("two_videos", pattern=[0, 1, 1, 2])
