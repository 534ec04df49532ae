"""transformers' unmodified LlavaOnevision under every method: the tokens and logits of this project's own runtime."""

import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from holitom import available_methods, holitom
from holitom.compressor import Compressor
from holitom.methods.dycoke import DycokeConfig, DycokeDecodeConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.prunevid import PruneVidConfig, PruneVidInnerConfig
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from tests.holitom.test_every_method import METHODS, VARIANTS, WITH_OUTER, small, without_inner
from tests.llava.test_against_transformers import VOCABULARY, expanded
from tests.references import flash_stub
from tests.references.decoder import NaiveDecoder
from tests.tiny_models import (
    IMAGE_ID,
    VIDEO_ID,
    greedily,
    hook_count,
    hugging_face_model,
    pixels,
    prompt,
    seen_calls,
    video,
)

STEPS = 4
PAD = 256
FULL = HolitomConfig(OuterConfig(retain_ratio=0.2, similarity_threshold=0.8), InnerConfig(merge_layer=4))
INNER_STAGES = [PruneVidConfig(inner=PruneVidInnerConfig(layer=2)), DycokeConfig(0.7, decode=DycokeDecodeConfig(3))]
FRAMES = 5
greedy = partial(greedily, steps=STEPS)


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> nn.Module:
    """This project's runtime."""
    return load_pretrained_model(checkpoint, None, "llava_qwen", torch_dtype="float32")[1]


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> nn.Module:
    """transformers' class with the same weights; it registers capturing hooks of its own in its first call."""
    model = hugging_face_model(checkpoint)
    run(model, their_inputs([["video"]], clips(1)))
    return model


@pytest.fixture(autouse=True)
def untouched(theirs):
    """No test leaves a hook, a compressor or a changed setting behind."""
    hooks, names = hook_count(theirs), set(vars(theirs))
    yield
    theirs.set_attn_implementation("sdpa")
    assert hook_count(theirs) == hooks
    assert set(vars(theirs)) == names


def clips(count: int) -> list[Tensor]:
    return [video(FRAMES, seed=11 * number, cuts=(1 + number, 4)) for number in range(count)]


def rows_of(kinds: list[list[str]]) -> list[Tensor]:
    """One prompt per row, with some text before, between and after its visual inputs; lengths differ."""
    rows = []
    for number, row in enumerate(kinds):
        pieces: list[int | str] = [3 + 2 * number]
        for kind in row:
            pieces += [kind, 4]
        rows.append(prompt(*pieces, 5, seed=number))
    return rows


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=PAD, padding_side="left"
    )
    return {"attention_mask": ids.ne(PAD).long(), "input_ids": ids}


def our_inputs(kinds: list[list[str]], videos: list[Tensor]) -> dict[str, Any]:
    """What ``generate`` of the own runtime takes; every image is the same plain one."""
    flat, left = [kind for row in kinds for kind in row], iter(videos)
    images = [next(left) if kind == "video" else pixels(1, seed=8) for kind in flat]
    inputs = padded(rows_of(kinds))
    if images:
        inputs |= {"images": images, "modalities": flat, "image_sizes": [(384, 384)] * len(flat)}
    inputs["inputs"] = inputs.pop("input_ids")
    return inputs


def their_inputs(kinds: list[list[str]], videos: list[Tensor]) -> dict[str, Any]:
    """The same as transformers' processor would write it."""
    rows = []
    for row, words in zip(rows_of(kinds), kinds, strict=True):
        counts = [FRAMES * 196 + 1 if word == "video" else 730 for word in words]
        rows.append(expanded(row, counts, [VIDEO_ID if word == "video" else IMAGE_ID for word in words]))
    inputs: dict[str, Any] = padded(rows)
    images = sum(row.count("image") for row in kinds)
    if videos:
        inputs["pixel_values_videos"] = torch.stack(videos)
    if images:
        inputs["pixel_values"] = pixels(images, 1, seed=8)[:1].expand(images, -1, -1, -1, -1)
        inputs["image_sizes"] = torch.full((images, 2), 384)
        inputs["batch_num_images"] = torch.full((images,), 2)  # not tiled
    inputs["inputs"] = inputs.pop("input_ids")
    return inputs


def run(model: nn.Module, inputs: dict[str, Any], **options: Any) -> Any:
    inputs = dict(inputs)
    return greedy(model, inputs.pop("inputs"), **inputs, **options)


PROMPTS = {
    "one video": [["video"]],
    "several videos": [["video", "video"]],
    "image and video": [["image", "video"]],
    "batch": [["video", "image", "video"], ["video"]],
    "batch with text": [["video"], []],
}


def assert_same_answers(ours: nn.Module, theirs: nn.Module, name_or_config: Any, kinds: list[list[str]]) -> None:
    videos = clips(sum(row.count("video") for row in kinds))
    make = partial(small, name_or_config) if isinstance(name_or_config, str) else name_or_config.build
    with make().applied(ours) as compressor:
        want, record = run(ours, our_inputs(kinds, videos)), compressor.record
    with make().applied(theirs) as compressor:
        got, their_record = run(theirs, their_inputs(kinds, videos)), compressor.record
    assert len(record.videos) == len(their_record.videos) == len(videos)
    for one, other in zip(their_record.videos, record.videos, strict=True):
        assert torch.equal(one.index, other.index)
        torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=0)
    if record.inner is not None:
        assert their_record.inner.spans == record.inner.spans
        assert torch.equal(their_record.inner.kept, record.inner.kept)
    assert torch.stack(want.logits).std() > 0.5
    got_logits, want_logits = torch.stack(got.logits)[..., :VOCABULARY], torch.stack(want.logits)
    torch.testing.assert_close(got_logits, want_logits, atol=1e-4, rtol=0)
    assert torch.equal(got.sequences[:, -STEPS:], want.sequences)


@pytest.mark.parametrize("kinds", PROMPTS.values(), ids=PROMPTS)
def test_holitom_keeps_the_tokens_and_logits_of_the_own_runtime(ours, theirs, kinds) -> None:
    assert_same_answers(ours, theirs, FULL, kinds)


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_every_method_keeps_the_tokens_and_logits_of_the_own_runtime(ours, theirs, name: str) -> None:
    assert_same_answers(ours, theirs, name, PROMPTS["batch"])


@pytest.mark.parametrize("kinds", [PROMPTS["several videos"], PROMPTS["batch"]], ids=["single", "batch"])
@pytest.mark.parametrize("config", INNER_STAGES, ids=["prunevid", "dycoke"])
def test_inner_stages_that_are_off_by_default(ours, theirs, config, kinds) -> None:
    """One shrinks the caches of all layers and follows the outer stage's groups, the other acts in decode steps."""
    assert_same_answers(ours, theirs, config, kinds)


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_bit_for_bit_gone_after_remove(theirs, name: str) -> None:
    inputs, hooks, names = their_inputs([["image", "video"]], clips(1)), hook_count(theirs), set(vars(theirs))
    before = run(theirs, inputs)
    with small(name).applied(theirs) as compressor:
        assert theirs.visual_compressor is compressor
        inside = run(theirs, inputs)
    after = run(theirs, inputs)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))
    assert not torch.equal(inside.logits[-1], before.logits[-1])
    with pytest.raises(ZeroDivisionError), small(name).applied(theirs):
        raise ZeroDivisionError
    assert hook_count(theirs) == hooks
    assert set(vars(theirs)) == names


@pytest.mark.parametrize("name", METHODS)
def test_text_and_images_are_left_alone(theirs, name: str) -> None:
    prompts = [their_inputs(kinds, []) for kinds in ([[]], [["image"]], [["image"], []])]
    want = [run(theirs, inputs) for inputs in prompts]
    with small(name).applied(theirs):
        got = [run(theirs, inputs) for inputs in prompts]
    for one, other in zip(got, want, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
@pytest.mark.parametrize("name", ["evs", "holitom", "pdrop", "prunevid"])
def test_a_left_padded_batch_gets_what_its_rows_get_alone(theirs, name: str, attention: str) -> None:
    kinds, videos = PROMPTS["batch"], clips(3)
    rows = rows_of(kinds)
    with small(name).applied(theirs):
        theirs.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
        together = run(theirs, their_inputs(kinds, videos))
        for number, (row, own) in enumerate(zip(rows, (videos[:2], videos[2:]), strict=True)):
            inputs = their_inputs(kinds[number : number + 1], own)
            counts = [FRAMES * 196 + 1 if word == "video" else 730 for word in kinds[number]]
            inputs["inputs"] = expanded(row, counts, [VIDEO_ID if w == "video" else IMAGE_ID for w in kinds[number]])
            inputs["attention_mask"] = torch.ones_like(inputs["inputs"])
            alone = run(theirs, inputs)
            assert together.sequences[number, -STEPS:].tolist() == alone.sequences[0, -STEPS:].tolist()
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)


def seen_while_generating(model: nn.Module, compressor: Compressor, inputs: dict[str, Any]) -> tuple[Any, list[dict]]:
    with compressor.applied(model), seen_calls(model.model.language_model) as calls:
        out = run(model, inputs)
    return out, calls


@pytest.mark.parametrize("kinds", [PROMPTS["image and video"], PROMPTS["batch"]], ids=["single", "batch"])
@pytest.mark.parametrize("name", WITH_OUTER)
def test_cached_decoding_equals_recomputation_of_the_kept_tokens(theirs, name: str, kinds) -> None:
    """The contracted prompt and the answer in one pass of the bare decoder, without cache and hooks."""
    videos = clips(sum(row.count("video") for row in kinds))
    out, calls = seen_while_generating(theirs, without_inner(name), their_inputs(kinds, videos))
    embeds = [calls[0]["inputs_embeds"], theirs.get_input_embeddings()(out.sequences[:, -STEPS:-1])]
    positions = calls[0]["position_ids"].expand(len(kinds), -1)
    positions = torch.cat([positions, positions[:, -1:] + torch.arange(1, STEPS)], dim=1)
    mask = calls[0]["attention_mask"]
    mask = torch.ones(embeds[0].shape[:2]) if mask is None else mask
    mask = torch.nn.functional.pad(mask.long(), (0, STEPS - 1), value=1)
    with torch.no_grad():
        states = theirs.model.language_model(
            inputs_embeds=torch.cat(embeds, dim=1), attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        logits = theirs.lm_head(states[:, -STEPS:])
    torch.testing.assert_close(logits, torch.stack(out.logits, dim=1), atol=1e-4, rtol=0)


def test_full_holitom_equals_the_naive_decoder_in_prefill_and_decode(theirs) -> None:
    inputs = their_inputs([["image", "video"]], clips(1))
    compressor = FULL.build()
    out, calls = seen_while_generating(theirs, compressor, inputs)
    parts = SimpleNamespace(model=theirs.model.language_model, config=theirs.config.text_config, lm_head=theirs.lm_head)
    naive, spans = NaiveDecoder(parts, 4, 0.5), list(compressor.record.inner.spans[0])
    embeds = calls[0]["inputs_embeds"][0]
    logits, decisions = naive.run(embeds, spans)
    torch.testing.assert_close(out.logits[0][0], logits[-1].float(), atol=2e-4, rtol=0)
    assert compressor.record.inner.kept[0].tolist() == decisions.kept
    answer = theirs.get_input_embeddings()(out.sequences[0, -STEPS:-1])
    whole, _ = naive.run(torch.cat([embeds, answer]), spans, decisions, embeds.shape[0])
    torch.testing.assert_close(torch.cat(out.logits), whole[-STEPS:].float(), atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", METHODS)
def test_one_forward_pass_equals_the_first_step_of_generate(theirs, name: str) -> None:
    """``generate`` encodes the videos before the pass, a plain call within it."""
    inputs = their_inputs(PROMPTS["batch"], clips(3))
    with small(name).applied(theirs):
        want = run(theirs, inputs).logits[0]
        got = theirs(input_ids=inputs.pop("inputs"), logits_to_keep=1, **inputs).logits[:, -1]
        short = theirs.visual_compressor.record
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    assert len(short.videos) == 3


@torch.no_grad()
@pytest.mark.parametrize("kinds", [PROMPTS["one video"], PROMPTS["batch"]], ids=["single", "batch"])
@pytest.mark.parametrize("name", ["evs", "holitom", "prunevid"])
def test_steps_by_hand_equal_those_of_generate(theirs, name: str, kinds) -> None:
    """Without positions, and without a mask where there is no padding: both count the long prompt by default."""
    inputs = their_inputs(kinds, clips(sum(row.count("video") for row in kinds)))
    if len(kinds) == 1:
        del inputs["attention_mask"]
    with small(name).applied(theirs):
        want = run(theirs, inputs)
        step = theirs(input_ids=inputs.pop("inputs"), **inputs)
        for number in range(1, STEPS):
            extended = {}
            if len(kinds) > 1:
                extended = {"attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, number), value=1)}
            token = want.sequences[:, -STEPS + number - 1][:, None]
            step = theirs(input_ids=token, past_key_values=step.past_key_values, **extended)
            torch.testing.assert_close(step.logits[:, -1], want.logits[number], atol=1e-4, rtol=0)


def test_without_a_cache_the_outer_stage_gives_the_same_tokens(theirs) -> None:
    inputs = their_inputs(PROMPTS["batch"], clips(3))
    with HolitomConfig(FULL.outer, None).build().applied(theirs):
        want, got = run(theirs, inputs), run(theirs, inputs, use_cache=False)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["holitom", "prunevid", "dycoke", "fastv"])
def test_beams_in_a_batch_equal_beams_alone(theirs, name: str) -> None:
    """The tower encodes every video once; its tokens are for all beams of its row."""
    kinds, videos = [["video", "video"], ["video"]], clips(3)
    options = {"num_beams": 3, "num_return_sequences": 3, "output_scores": True}
    with small(name).applied(theirs):
        together = run(theirs, their_inputs(kinds, videos), **options)
        alone = run(theirs, their_inputs(kinds[:1], videos[:2]), **options)
        other = run(theirs, their_inputs(kinds[:1], videos[1:]), **options)
    torch.testing.assert_close(together.sequences_scores[:3], alone.sequences_scores, atol=1e-4, rtol=0)
    assert not torch.allclose(together.sequences_scores[:3], other.sequences_scores, atol=1e-3)


def test_the_one_liner(theirs) -> None:
    assert holitom(theirs, retain_ratio=0.15, merge_layer=4) is theirs
    compressor = theirs.visual_compressor
    run(theirs, their_inputs([["video"]], clips(1)))
    run(theirs, their_inputs([["video"]], clips(1)))
    assert compressor.record.tokens_before == [FRAMES * 196], "the record is that of the latest prompt"
    assert compressor.record.retained_before_llm < 0.3
    with pytest.raises(RuntimeError, match="has a compressor already"):
        FULL.build().apply(theirs)
    compressor.remove()
    compressor.remove()  # nothing is left to do
    with pytest.raises(InputError, match="merge_layer = 18"):
        holitom(theirs, merge_layer=18)
    assert [stage.layer for stage in holitom(theirs).visual_compressor.inner.stages] == [4]  # of 6, as 18 of 28
    theirs.visual_compressor.remove()


@torch.no_grad()
def test_embeddings_without_ids_do_not_show_the_record_of_the_prompt_before(theirs) -> None:
    with HolitomConfig(FULL.outer, None).build().applied(theirs) as compressor:
        run(theirs, their_inputs([["video"]], clips(1)))
        assert len(compressor.record.videos) == 1
        theirs(inputs_embeds=theirs.get_input_embeddings()(prompt(4)))
        assert compressor.record.videos == []


def test_an_inner_stage_is_handed_the_record_of_the_outer_one(theirs) -> None:
    with INNER_STAGES[0].build().applied(theirs) as compressor:
        run(theirs, their_inputs([["video"]], clips(1)))
        assert compressor.inner.outer is compressor.record
        assert len(compressor.inner.outer.videos) == 1


def test_a_second_question_after_removal_and_a_new_method(theirs) -> None:
    inputs = their_inputs([["video"]], clips(1))
    with FULL.build().applied(theirs):
        want = run(theirs, inputs)
        assert torch.equal(torch.stack(run(theirs, inputs).logits), torch.stack(want.logits))
    with available_methods()["uniform"]().build().applied(theirs):
        assert not torch.equal(run(theirs, inputs).logits[0], want.logits[0])
    with FULL.build().applied(theirs):
        assert torch.equal(torch.stack(run(theirs, inputs).logits), torch.stack(want.logits))


@torch.no_grad()
def test_what_cannot_be_served_is_refused(theirs) -> None:
    """One line each, and nothing is left behind (see ``untouched``)."""
    inputs = their_inputs([["video"]], clips(1))
    ids = inputs.pop("inputs")
    mask, pixel_values = inputs["attention_mask"], {"pixel_values_videos": inputs["pixel_values_videos"]}
    encoded = {"video": theirs.model.get_video_features(inputs["pixel_values_videos"], return_dict=True)}
    call = partial(theirs, input_ids=ids, attention_mask=mask)
    with FULL.build().applied(theirs):
        with pytest.raises(InputError, match="logits_to_keep must be a number"):
            call(logits_to_keep=torch.tensor([3]), **pixel_values)
        with pytest.raises(InputError, match=r"981 video placeholder\(s\) but no video"):
            call()
        with pytest.raises(InputError, match="prefill_chunk_size"):
            run(theirs, {"inputs": ids, **inputs}, prefill_chunk_size=512)
        with pytest.raises(InputError, match="without input_ids"):
            theirs(inputs_embeds=theirs.get_input_embeddings()(ids), **pixel_values)
        with pytest.raises(RuntimeError, match="encode them again"):
            call(mm_encoder_outputs=encoded)
        with pytest.raises(NotImplementedError, match="left padding"):
            theirs(
                input_ids=ids, attention_mask=mask.index_fill(1, torch.tensor([ids.shape[1] - 1]), 0), **pixel_values
            )
        with pytest.raises(InputError, match="hides video placeholders"):
            theirs(input_ids=ids, attention_mask=mask.index_fill(1, torch.arange(9), 0), **pixel_values)
        with pytest.raises(NotImplementedError, match="DynamicCache"):
            call(past_key_values=StaticCache(theirs.config.text_config, max_cache_len=2000), **pixel_values)
        with pytest.raises(RuntimeError, match="without video_spans"):
            theirs.generate(inputs_embeds=torch.randn(1, 20, 64), max_new_tokens=1)
        broken = ids.clone()
        broken[0, 10], broken[0, 0] = 7, VIDEO_ID
        with pytest.raises(InputError, match="not 981 tokens in one piece"):
            theirs(input_ids=broken, **pixel_values)


@torch.no_grad()
@pytest.mark.parametrize("config", [FULL, HolitomConfig(FULL.outer, None)], ids=["full", "outer"])
def test_caches_that_cannot_be_continued_are_refused(theirs, config) -> None:
    inputs = their_inputs([["video"]], clips(1))
    ids, more = inputs["inputs"], prompt(4)
    with config.build().applied(theirs):
        out = run(theirs, inputs)
        cache, copied = out.past_key_values, copy.deepcopy(out.past_key_values)
        token = {"input_ids": more[:, :1], "attention_mask": torch.ones(1, ids.shape[1] + STEPS)}
        with pytest.raises(RuntimeError, match="it is a copy"):
            theirs(past_key_values=copied, **token)
        with pytest.raises(NotImplementedError, match="later turn"):
            theirs(past_key_values=cache, input_ids=ids, pixel_values_videos=inputs["pixel_values_videos"])
        with pytest.raises((RuntimeError, InputError), match="new tokens only"):
            theirs.generate(torch.cat([out.sequences, more], dim=1), past_key_values=cache, max_new_tokens=1)
        with pytest.raises(RuntimeError, match="rows cannot be selected"):
            theirs(past_key_values=cache, input_ids=more[:, :1].expand(2, -1))
        second = theirs(past_key_values=cache, input_ids=more)  # new tokens alone are a second turn
    assert second.logits.shape[1] == 4
    with config.build().applied(theirs), pytest.raises(RuntimeError, match="it is a copy"):
        theirs(past_key_values=cache, position_ids=torch.tensor([[ids.shape[1] + STEPS + 3]]), input_ids=more[:, :1])


@torch.no_grad()
def test_a_second_turn_equals_recomputation(theirs) -> None:
    inputs, more = their_inputs([["video"]], clips(1)), prompt(4, seed=3)
    bare = theirs.model.language_model
    with HolitomConfig(FULL.outer, None).build().applied(theirs), seen_calls(bare) as calls:
        step = theirs(input_ids=inputs.pop("inputs"), past_key_values=DynamicCache(), **inputs)
        second = theirs(input_ids=more, past_key_values=step.past_key_values).logits
    embeds = torch.cat([calls[0]["inputs_embeds"], theirs.get_input_embeddings()(more)], dim=1)
    want = theirs.lm_head(bare(inputs_embeds=embeds, use_cache=False).last_hidden_state)
    torch.testing.assert_close(second, want[:, -4:], atol=1e-4, rtol=0)


def test_towers_and_settings_that_lack_a_signal_are_refused(checkpoint: Path) -> None:
    model = hugging_face_model(checkpoint)
    for setting, value in (("vision_feature_layer", [-1, -2]), ("vision_feature_select_strategy", "default")):
        kept = getattr(model.config, setting)
        setattr(model.config, setting, value)
        with pytest.raises(InputError, match="must be one layer"):
            FULL.build().apply(model)
        setattr(model.config, setting, kept)
    assert hook_count(model) == 0
    assert "visual_compressor" not in vars(model)
