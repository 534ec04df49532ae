"""transformers' unmodified Qwen2.5-VL, Qwen2-VL and Qwen3-VL under compression, against naive recomputation."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holitom import holitom
from holitom.compressor import Compressor
from holitom.methods.fastvid import FastVidConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.ops.attention_scores import received_attention, received_by_segment
from llava.errors import InputError
from tests.holitom.test_every_method import METHODS, WITH_OUTER, small, without_inner
from tests.references import flash_stub
from tests.references.mrope import NaiveDeepStack, merged_values, prompt_triples, received, window_order
from tests.references.outer import compress
from tests.tiny_models import greedily, hook_count, seen_calls
from tests.tiny_qwen_vl import (
    FIRST_SPECIAL,
    MERGE,
    SECONDS,
    TEXT,
    VIDEO_ID,
    WINDOW,
    inputs_of,
    tiny_qwen_vl,
    tokens_of,
    written,
)

STEPS = 4
OUTER = OuterConfig(retain_ratio=0.4, similarity_threshold=0.8)
INNER = InnerConfig(merge_layer=4)
FULL, WITHOUT_INNER = HolitomConfig(OUTER, INNER), HolitomConfig(OUTER, None)
REFUSED = {"earlytom": "SigLIP", "pdrop": "numbers the tokens it keeps anew", "visionzip": "key_metric"}
SERVED = [name for name in METHODS if name not in REFUSED]
FAMILIES = ["qwen2_5_vl", "qwen2_vl", "qwen3_vl"]

# Windows of 2 x 2 tokens divide neither 5 x 3 nor 3 x 4; the first video has a cut.
WIDE, TALL, PICTURE = (6, 8, 12), (5, 10, 6), (1, 6, 8)
SINGLE = [[5, ("video", WIDE), 7]]
MIXED = [[4, ("image", PICTURE), 3, ("video", WIDE), 2, ("video", TALL), 6]]
BATCH = [[5, ("video", WIDE), 7, ("image", PICTURE), 3], [4, ("video", TALL), 2, ("video", (4, 8, 8)), 6]]
WITH_TEXT = [[3, ("video", TALL), 4], [40]]
PROMPTS = {"single": SINGLE, "mixed": MIXED, "batch": BATCH, "batch with text": WITH_TEXT}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> nn.Module:
    """A tiny random model, the same for all tests."""
    return tiny_qwen_vl(request.param)


@pytest.fixture(autouse=True)
def untouched(model):
    """No test leaves a hook, a compressor or a changed setting behind."""
    names = set(vars(model))
    yield
    model.set_attn_implementation("sdpa")
    assert hook_count(model) == 0
    assert set(vars(model)) == names


def is_2_5(model: nn.Module) -> bool:
    return model.config.model_type == "qwen2_5_vl"


def is_3(model: nn.Module) -> bool:
    """Whether prompts have timestamps and the decoder visual features for its first layers."""
    return model.config.model_type.startswith("qwen3_vl")


def given(model: nn.Module, rows: list[list[Any]]) -> dict[str, Any]:
    return inputs_of(rows, seconds=is_2_5(model), timestamps=is_3(model))


def run(model: nn.Module, inputs: dict[str, Any], **options: Any) -> Any:
    inputs = dict(inputs)
    # random weights write placeholders too, which no step without a cache can tell from a video's
    options = {"suppress_tokens": list(range(FIRST_SPECIAL, TEXT["vocab_size"])), **options}
    return greedily(model, inputs.pop("input_ids"), STEPS, **inputs, **options)


def interval(model: nn.Module) -> float:
    """Positions between two temporal steps."""
    return model.config.vision_config.tokens_per_second * SECONDS if is_2_5(model) else 1


def triples_of(model: nn.Module, row: list[Any]) -> list[tuple[int, int, int]]:
    """Positions of one prompt before compression."""
    pieces = [
        piece
        if isinstance(piece, int)
        else (
            1 if piece[0] == "frame" else piece[1][0],
            piece[1][1] // 2,
            piece[1][2] // 2,
            interval(model) if piece[0] == "video" else 1,
        )
        for piece in written(row, is_3(model))
    ]
    return prompt_triples(pieces)


def grids_of(rows: list[list[Any]]) -> list[tuple[int, int, int]]:
    return [piece[1] for row in rows for piece in row if not isinstance(piece, int) and piece[0] == "video"]


@torch.no_grad()
def encoded(model: nn.Module, inputs: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Features (steps, tokens, dim) and naive received attention (steps, tokens) of every video, uncompressed."""
    tower, grids = model.model.visual, [tuple(grid) for grid in inputs["video_grid_thw"].tolist()]
    states: list[Tensor] = []

    def see(attention: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    attention = tower.blocks[2 if is_2_5(model) else 3].attn
    with attention.register_forward_pre_hook(see, with_kwargs=True):
        features = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
    scores = []
    for (steps, rows, cols), part in zip(
        grids, states[0].split([steps * rows * cols for steps, rows, cols in grids]), strict=True
    ):
        merged = part.unflatten(0, (-1, MERGE**2))
        raster = merged
        if is_2_5(model):
            raster = torch.empty_like(merged)
            raster[window_order(steps, rows // MERGE, cols // MERGE, WINDOW)] = merged
        scores.append(received(attention, raster.flatten(0, 1), steps, rows // MERGE, cols // MERGE, 10000.0))
    shaped = [part.unflatten(0, (grid[0], -1)) for part, grid in zip(features, grids, strict=True)]
    return shaped, scores


def test_scores_of_packed_frames_do_not_depend_on_the_block() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(2, 37, 8, generator=generator) for _ in range(2))
    frames = zip(query.split([20, 17], 1), key.split([20, 17], 1), strict=True)
    want = [received_attention(asking[None], asked[None], 0.3)[0] for asking, asked in frames]
    for block in (1, 7, 64):
        got = received_by_segment(query, key, [20, 17], 0.3, block)
        torch.testing.assert_close(got, torch.cat(want), atol=1e-6, rtol=0)
    torch.testing.assert_close(got[:20].sum(), torch.tensor(1.0))


@pytest.mark.parametrize("rows", [SINGLE, BATCH], ids=["one", "several"])
def test_received_attention_is_the_column_mean_of_the_last_full_block(model, rows) -> None:
    class Spy:
        """An outer stage that keeps everything and remembers what it was given."""

        signals, keeps_positions = ("received_attention",), False

        def __init__(self) -> None:
            self.videos: list[Any] = []

        def __call__(self, video: Any) -> Any:
            self.videos.append(video)
            return Compressor(None, None).compress_features(video.features, {}, video.pool, "no_token")

        def most_kept(self, frames: int, tokens: int) -> int:
            return frames * tokens

    inputs, spy = given(model, rows), Spy()
    features, scores = encoded(model, inputs)
    want = run(model, inputs)
    with Compressor(spy, None).applied(model):
        got = run(model, inputs)
    assert len(spy.videos) == len(features)
    for video, feature, score in zip(spy.videos, features, scores, strict=True):
        torch.testing.assert_close(video.features, feature, atol=1e-5, rtol=0)
        torch.testing.assert_close(video.pooled("received_attention"), score.float(), atol=1e-6, rtol=1e-4)
        assert score.std() > 0.01 * score.mean()
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
def test_the_outer_stage_equals_the_naive_one(model, rows) -> None:
    inputs = given(model, rows)
    features, scores = encoded(model, inputs)
    with WITHOUT_INNER.build().applied(model) as compressor:
        run(model, inputs)
        videos = compressor.record.videos
    assert len(videos) == len(features) == len(grids_of(rows))
    for kept, feature, score in zip(videos, features, scores, strict=True):
        naive = compress(feature.numpy(), score.float().numpy(), OUTER, "block")
        assert kept.index.tolist() == naive.index(feature.shape[1])
        torch.testing.assert_close(kept.features, torch.tensor(naive.features()).float(), atol=1e-5, rtol=0)
        assert 0 < len(kept.index) < feature.shape[0] * feature.shape[1]
        static = sum(kind == "static" for *_, kind in naive.entries)
        assert 0 < static < len(kept.index) or len(features) > 1


def places_left(model: nn.Module, row: list[Any], videos: list[Any]) -> list[int]:
    """Places in the prompt of one row's tokens that the outer stage leaves."""
    return [place for place, _ in tokens_left(model, row, videos)]


def tokens_left(model: nn.Module, row: list[Any], videos: list[Any]) -> list[tuple[int, tuple[str, int, int]]]:
    """The same, each with what it is: ("text", 0, 0), ("image", number, place) or ("video", number, row of tokens)."""
    found, now, left, images, seen, own = [], 0, iter(videos), 0, 0, []
    for piece in written(row, is_3(model)):
        if isinstance(piece, int):
            found += [(now + at, ("text", 0, 0)) for at in range(piece)]
            now += piece
            continue
        length = tokens_of(piece[1])
        if piece[0] == "image":
            found += [(now + at, ("image", images, at)) for at in range(length)]
            images += 1
        elif piece[0] == "video":
            found += [(now + at, ("video", seen, token)) for token, at in enumerate(next(left).index.tolist())]
            seen += 1
        else:
            own, frame, length = own if piece[2] else next(left).index.tolist(), piece[2], length // piece[1][0]
            here = [(token, at - frame * length) for token, at in enumerate(own) if at // length == frame]
            found += [(now + at, ("video", seen, token)) for token, at in here]
            seen += frame == piece[1][0] - 1
        now += length
    return found


@torch.no_grad()
def deep_of(model: nn.Module, inputs: dict[str, Any], outer: OuterConfig | None) -> dict[str, list[list[Tensor]]]:
    """By kind, per layer and image or video, naive features of the kept tokens for the first decoder layers."""
    found: dict[str, list[list[Tensor]]] = {"image": [[]] * 3, "video": [[]] * 3}
    if not is_3(model):
        return found
    if "pixel_values" in inputs:
        output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        found["image"] = [split_like(layer, output.pooler_output) for layer in output.deepstack_features]
    if "pixel_values_videos" in inputs:
        output = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        found["video"] = [split_like(layer, output.pooler_output) for layer in output.deepstack_features]
        if outer is not None:
            features, scores = encoded(model, inputs)
            kept = [
                compress(feature.numpy(), score.float().numpy(), outer, "block").entries
                for feature, score in zip(features, scores, strict=True)
            ]
            found["video"] = [
                [
                    merged_values(entries, part.unflatten(0, feature.shape[:2]), outer.center_weight)
                    for entries, part, feature in zip(kept, layer, features, strict=True)
                ]
                for layer in found["video"]
            ]
    return found


def split_like(layer: Any, outputs: Any) -> list[Tensor]:
    """Features of one layer, one tensor per image or video; transformers 5.17 has them in one."""
    return list(layer.split([len(each) for each in outputs]) if isinstance(layer, Tensor) else layer)


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", ["holitom", "evs", "prunevid", "uniform"])
def test_kept_tokens_hold_their_positions_on_three_axes(model, rows, name: str) -> None:
    inputs = given(model, rows)
    compressor = without_inner(name)
    with compressor.applied(model), seen_calls(model.model.language_model) as calls:
        run(model, inputs)
    used, whole = 0, inputs["input_ids"].shape[1]
    for number, row in enumerate(rows):
        count = len(grids_of([row]))
        places = places_left(model, row, compressor.record.videos[used : used + count])
        used += count
        triples = triples_of(model, row)
        want = torch.tensor([triples[place] for place in places]).T
        got = calls[0]["position_ids"][:, number]
        assert torch.equal(got[-3:, -len(places) :], want)
        assert got[0, -len(places) :].tolist() == list(range(len(places))), "plain positions have no gaps"
        embeds = calls[0]["inputs_embeds"][number]
        assert not embeds[: len(embeds) - len(places)].any(), "padding"
        step = torch.tensor(triples[-1])
        for later, call in enumerate(calls[1:], start=1):
            assert torch.equal(call["position_ids"][-3:, number, 0], step + later)
            mask = call.get("attention_mask")
            assert (mask is None and len(rows) == 1) or int(mask[number].sum()) == len(places) + later
    assert len(calls) == STEPS
    assert calls[0]["inputs_embeds"].shape[1] < whole or any(row == [40] for row in rows)


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("config", [FULL, WITHOUT_INNER, HolitomConfig(None, INNER)], ids=["full", "outer", "inner"])
def test_prefill_and_cached_decode_equal_the_naive_decoder(model, config, rows) -> None:
    """Every row of a left-padded batch on its own, recomputed whole in float64 with frozen decisions."""
    check_against_naive_decoder(model, config, rows)


def check_against_naive_decoder(model: nn.Module, config: HolitomConfig, rows: list[list[Any]]) -> None:
    inputs, compressor, layer = given(model, rows), config.build(), config.inner.merge_layer if config.inner else 4
    with compressor.applied(model), seen_calls(model.model.language_model) as calls:
        out = run(model, inputs)
    record, used, images = compressor.record, 0, 0
    deep = deep_of(model, inputs, config.outer)
    parts = SimpleNamespace(model=model.model.language_model, config=model.config.text_config, lm_head=model.lm_head)
    for number, row in enumerate(rows):
        count = len(grids_of([row]))
        left = tokens_left(model, row, record.videos[used : used + count])
        places, before = [place for place, _ in left], {"image": images, "video": used}
        used, images = used + count, images + sum(not isinstance(piece, int) and piece[0] == "image" for piece in row)
        ratio, rule = (config.inner.merge_ratio, config.inner.merge_rule) if config.inner is not None else (0.0, "mean")
        naive = NaiveDeepStack(parts, layer, ratio, rule)
        zero = torch.zeros(TEXT["hidden_size"])
        naive.deep = [
            torch.stack(
                [zero if kind == "text" else deep[kind][at][before[kind] + n][token] for _, (kind, n, token) in left]
            )
            for at in range(3 if is_3(model) else 0)
        ]
        triples = triples_of(model, row)
        naive.triples = [triples[place] for place in places]
        naive.triples += [tuple(axis + later for axis in triples[-1]) for later in range(1, STEPS)]
        short = len(places)
        embeds = calls[0]["inputs_embeds"][number, -short:]
        padding = calls[0]["inputs_embeds"].shape[1] - short
        spans = []
        if record.inner is not None:
            assert len(record.inner.spans[number]) == count
            spans = [[at for at, (_, what) in enumerate(left) if what[:2] == ("video", n)] for n in range(count)]
        logits, decisions = naive.run(embeds, spans)
        torch.testing.assert_close(out.logits[0][number], logits[-1].float(), atol=3e-4, rtol=0)
        if record.inner is not None:
            kept = record.inner.kept[number]
            assert (kept[kept >= 0] - padding).tolist() == decisions.kept
        answer = model.get_input_embeddings()(out.sequences[number, -STEPS:-1])
        whole, _ = naive.run(torch.cat([embeds, answer]), spans, decisions, short)
        got = torch.stack(out.logits)[:, number]
        assert got.std() > 0.5
        torch.testing.assert_close(got, whole[-STEPS:].float(), atol=3e-4, rtol=0)


@pytest.mark.parametrize("name", SERVED)
def test_bit_for_bit_gone_after_remove(model, name: str) -> None:
    inputs = given(model, MIXED)
    before = run(model, inputs)
    with small(name).applied(model) as compressor:
        assert model.visual_compressor is compressor
        inside = run(model, inputs)
    after = run(model, inputs)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))
    assert not torch.equal(inside.logits[-1], before.logits[-1])


@pytest.mark.parametrize("name", SERVED)
def test_text_and_images_are_left_alone(model, name: str) -> None:
    prompts = [given(model, rows) for rows in ([[12]], [[4, ("image", PICTURE), 3]], [[5, ("image", WIDE), 2], [3]])]
    want = [run(model, inputs) for inputs in prompts]
    with small(name).applied(model):
        got = [run(model, inputs) for inputs in prompts]
    for one, other in zip(got, want, strict=True):
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))


def alone(inputs: dict[str, Any], number: int, rows: list[list[Any]]) -> dict[str, Any]:
    """What one row of a batch is without the others."""
    real = inputs["attention_mask"][number].bool()
    own = {key: inputs[key][number][real][None] for key in ("input_ids", "attention_mask", "mm_token_type_ids")}
    for kind, pixels, sizes in (
        ("video", "pixel_values_videos", "video_grid_thw"),
        ("image", "pixel_values", "image_grid_thw"),
    ):
        counts = [sum(not isinstance(piece, int) and piece[0] == kind for piece in row) for row in rows]
        if counts[number]:
            mine = slice(sum(counts[:number]), sum(counts[: number + 1]))
            own[sizes] = inputs[sizes][mine]
            bounds = [0, *inputs[sizes].prod(-1).cumsum(0).tolist()]
            own[pixels] = inputs[pixels][bounds[mine.start] : bounds[mine.stop]]
            if kind == "video" and "second_per_grid_ts" in inputs:
                own["second_per_grid_ts"] = inputs["second_per_grid_ts"][mine]
    return own


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
@pytest.mark.parametrize("name", SERVED)
def test_a_left_padded_batch_gets_what_its_rows_get_alone(model, name: str, attention: str) -> None:
    inputs = given(model, BATCH)
    with small(name).applied(model):
        chosen = flash_stub.register() if attention == "flash stub" else attention
        model.set_attn_implementation({"text_config": chosen} if attention == "flash stub" else chosen)
        together = run(model, inputs)
        for number in range(len(BATCH)):
            single = run(model, alone(inputs, number, BATCH))
            assert together.sequences[number, -STEPS:].tolist() == single.sequences[0, -STEPS:].tolist()
            for got, want in zip(together.logits, single.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(set(WITH_OUTER) - set(REFUSED)))
def test_cached_decoding_equals_the_cache_free_one(model, name: str) -> None:
    """Without a cache every step encodes, compresses and contracts the whole prompt again."""
    inputs = given(model, BATCH)
    with without_inner(name).applied(model):
        want, got = run(model, inputs), run(model, inputs, use_cache=False)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=2e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["evs", "fastv", "holitom", "prunevid"])
def test_steps_by_hand_equal_those_of_generate(model, name: str) -> None:
    """Without mask and positions the model counts the tokens in the cache, which are fewer than the prompt's.

    The text after the videos is longer than they are in time: only then do the model's own steps agree with those of
    its ``generate``, one going on after the largest position and the other after the last.
    """
    inputs = given(model, [[*MIXED[0], 20]])
    del inputs["attention_mask"]
    with small(name).applied(model):
        want = run(model, inputs)
        step = model(**inputs)
        torch.testing.assert_close(step.logits[:, -1], want.logits[0], atol=1e-4, rtol=0)
        for number in range(1, STEPS):
            token = want.sequences[:, -STEPS + number - 1][:, None]
            step = model(input_ids=token, past_key_values=step.past_key_values)
            torch.testing.assert_close(step.logits[:, -1], want.logits[number], atol=1e-4, rtol=0)


def test_beams_in_a_batch_equal_beams_alone(model) -> None:
    inputs, options = given(model, BATCH), {"num_beams": 3, "num_return_sequences": 3, "output_scores": True}
    with FULL.build().applied(model):
        together = run(model, inputs, **options)
        scores = [run(model, alone(inputs, number, BATCH), **options).sequences_scores for number in range(2)]
    torch.testing.assert_close(together.sequences_scores, torch.cat(scores), atol=1e-4, rtol=0)


def test_the_one_liner(model) -> None:
    assert holitom(model, retain_ratio=0.3, merge_layer=4) is model
    record = (run(model, given(model, BATCH)), model.visual_compressor.record)[1]
    assert record.tokens_before == [tokens_of(grid) for grid in grids_of(BATCH)]
    assert record.retained_before_llm < 0.45
    per_layer = record.tokens_per_layer(TEXT["num_hidden_layers"])
    assert per_layer[0] == record.tokens_after_outer[0] > per_layer[-1] > 0
    model.visual_compressor.remove()


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_methods_that_cannot_work_are_refused(model, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as error:
        small(name).apply(model)
    assert "\n" not in str(error.value)
    assert "use holitom" in str(error.value)


def test_a_pooling_head_is_refused(model, tmp_path) -> None:
    outer = FastVidConfig(min_segments=2).build().outer
    outer.signals = ("tower_output",)  # what head_weights ask for
    with pytest.raises(InputError, match="tower_output"):
        Compressor(outer, None).apply(model)


@torch.no_grad()
def test_calls_that_cannot_be_served_are_refused(model) -> None:
    inputs = given(model, SINGLE)
    ids = inputs["input_ids"]
    with FULL.build().applied(model):
        cache = model(**inputs).past_key_values
        with pytest.raises(NotImplementedError, match="later turn"):
            model(**{**inputs, "past_key_values": cache})
        more = torch.nn.functional.pad(ids, (0, 3), value=1)
        types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 3))
        with pytest.raises((RuntimeError, InputError), match="new tokens only"):
            model.generate(more, mm_token_type_ids=types, past_key_values=cache, max_new_tokens=1)
        broken = ids.clone()
        broken[0, 10], broken[0, 0] = 4, VIDEO_ID
        with pytest.raises(InputError, match=r"not (144 tokens in one piece|6 pieces of 24 tokens)"):
            model(**{**inputs, "input_ids": broken})
