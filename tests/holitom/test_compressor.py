"""HoliTom on the whole model: applied, compared with recomputation, taken off again."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from holitom import holitom
from holitom.compressor import Compressor
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from tests.references import flash_stub
from tests.tiny_models import greedily, hook_count, pixels, prompt, video

STEPS = 5
OUTER = OuterConfig(retain_ratio=0.2, similarity_threshold=0.8)
INNER = InnerConfig(merge_layer=4, merge_ratio=0.5)
FULL = HolitomConfig(OUTER, INNER)
WITHOUT_INNER = HolitomConfig(OUTER, None)


greedy = partial(greedily, steps=STEPS)


def batch(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=256, padding_side="left"
    )
    return ids, ids.ne(256)


@pytest.mark.parametrize("config", [FULL, WITHOUT_INNER, HolitomConfig(None, INNER)], ids=["full", "outer", "inner"])
def test_after_remove_the_model_is_bit_for_bit_the_original(model, config) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(4, cuts=(2,))], "modalities": ["video"]}
    before, state = greedy(model, ids, **inputs), set(model.__dict__)
    compressor = config.build()
    with compressor.applied(model):
        inside = greedy(model, ids, **inputs)
        assert model.visual_compressor is compressor
    after = greedy(model, ids, **inputs)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))
    assert not torch.equal(inside.logits[0], before.logits[0])
    assert hook_count(model) == 0
    assert model.visual_compressor is None
    assert set(model.__dict__) - {"visual_compressor"} == state - {"visual_compressor"}


def test_removed_after_an_exception(model) -> None:
    with pytest.raises(InputError), FULL.build().applied(model):
        greedy(model, prompt(5), images=[video(1)], modalities=["video"])
    assert hook_count(model) == 0
    assert model.visual_compressor is None


def test_everything_kept_equals_vanilla(model) -> None:
    """A threshold of 1 finds nothing static, even in a clip of equal frames; a ratio of 1 keeps everything."""
    ids, inputs = prompt(5, "video", 9), {"images": [video(1).repeat(3, 1, 1, 1)], "modalities": ["video"]}
    want = greedy(model, ids, **inputs)
    keep_all = HolitomConfig(OuterConfig(1.0, 1.0), InnerConfig(4, 0.0))
    with keep_all.build().applied(model) as compressor:
        got = greedy(model, ids, **inputs)
        assert compressor.record.tokens_after_outer == [3 * 196]
    assert torch.equal(torch.stack(got.logits), torch.stack(want.logits))


def test_text_and_images_are_left_alone(model) -> None:
    ids, inputs = prompt(5, "image", 9), {"images": [pixels()], "image_sizes": [(384, 384)]}
    want_text, want_image = greedy(model, prompt(20)), greedy(model, ids, **inputs)
    with FULL.build().applied(model):
        got_text, got_image = greedy(model, prompt(20)), greedy(model, ids, **inputs)
    assert torch.equal(torch.stack(got_text.logits), torch.stack(want_text.logits))
    assert torch.equal(torch.stack(got_image.logits), torch.stack(want_image.logits))


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash stub"])
def test_a_ragged_batch_gets_exactly_what_its_rows_get_alone(model, attention: str) -> None:
    rows = [
        prompt(5, "video", 9, "image", 3, "video", 2, seed=1),
        prompt(12, seed=2),
        prompt(3, "video", 4, seed=3),
    ]
    visuals = [video(5, seed=1, cuts=(2,)), pixels(seed=8), video(3, seed=4), video(6, seed=9, cuts=(3,))]
    kinds = ["video", "image", "video", "video"]
    per_row = [slice(0, 3), slice(3, 3), slice(3, 4)]
    ids, mask = batch(rows)
    with FULL.build().applied(model) as compressor:
        model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)
        together = greedy(model, ids, attention_mask=mask, images=visuals, modalities=kinds)
        outer, inner = compressor.record.tokens_after_outer, compressor.record.inner.tokens_after
        for number, (row, part) in enumerate(zip(rows, per_row, strict=True)):
            inputs = {"images": visuals[part], "modalities": kinds[part]} if visuals[part] else {}
            alone = greedy(model, row, **inputs)
            assert together.sequences[number].tolist() == alone.sequences[0].tolist()
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)
            assert compressor.record.inner.tokens_after[0] == inner[number]
    assert len(outer) == 3
    assert [len(row) for row in inner] == [2, 0, 1]


def test_cached_decoding_equals_recomputation_with_the_same_kept_tokens(model) -> None:
    """The generated text is appended to the kept prompt and recomputed in one pass without hooks."""
    ids, inputs = prompt(5, "video", 9), {"images": [video(5, cuts=(2,))], "modalities": ["video"]}
    with WITHOUT_INNER.build().applied(model):
        out = greedy(model, ids, **inputs)
        kept = model.splice_visuals(ids, None, None, inputs["images"], None, inputs["modalities"])
    answer = model.model.embed_tokens(out.sequences[:, :-1])
    with torch.no_grad():
        logits = model(inputs_embeds=torch.cat([kept.inputs_embeds, answer], dim=1), use_cache=False).logits
    torch.testing.assert_close(logits[0, -STEPS:], torch.stack(out.logits)[:, 0], atol=1e-4, rtol=0)


def test_record_counts_and_positions(model) -> None:
    frames = 6
    with FULL.build().applied(model) as compressor:
        greedy(model, prompt(5, "video", 9), images=[video(frames, cuts=(3,))], modalities=["video"])
        record = compressor.record
    details = record.videos[0].details
    assert record.tokens_before == [frames * 196]
    assert record.tokens_after_outer == [record.videos[0].features.shape[0]]
    assert sum(details.static_kept) + sum(details.dynamic_kept) == record.tokens_after_outer[0]
    assert [pair[0] for pair in details.segments] == [0, *[pair[1] + 1 for pair in details.segments[:-1]]]
    assert abs(record.retained_before_llm - 0.2) < 0.02
    outer = record.tokens_after_outer[0]
    assert record.inner.tokens_before == ((outer + 1,),)
    assert record.inner.tokens_after == ((round((outer + 1) * 0.5),),)
    kept = record.inner.cpu_kept[0]
    assert kept.shape[0] == 5 + 9 + record.inner.tokens_after[0][0]
    assert bool((kept.diff() > 0).all())


def test_threads_do_not_mix(model) -> None:
    """Several threads may generate with the inner stage; with an outer stage the second one is refused."""
    clips = [video(3, seed=seed, cuts=(seed % 3,)) for seed in range(4)]
    prompts = [prompt(3 + seed, "video", 9, seed=seed) for seed in range(4)]

    def run(number: int) -> list[int]:
        return greedy(model, prompts[number], images=[clips[number]], modalities="video").sequences[0].tolist()

    with HolitomConfig(None, INNER).build().applied(model), ThreadPoolExecutor(4) as pool:
        want = [run(number) for number in range(4)]
        assert len({tuple(tokens) for tokens in want}) > 1
        for _ in range(3):
            assert list(pool.map(run, range(4))) == want


@pytest.mark.parametrize("newline", ["one_token", "grid"])
def test_which_original_tokens_survive_the_inner_stage(model, newline: str) -> None:
    """Recounted from the sequence: every kept position inside a span is one output token (or a newline)."""
    model.config.mm_newline_position = newline
    clips = [video(3, seed=1), video(4, seed=5, cuts=(2,))]
    with FULL.build().applied(model) as compressor:
        greedy(model, prompt(3, "video", 2, "video", 4), images=clips, modalities="video")
        record = compressor.record
    for number, tokens in enumerate(record.videos):
        start, stop = record.inner.spans[0][number]
        survivors = [p - start for p in record.inner.cpu_kept[0].tolist() if start <= p < stop]
        layout = []  # output row at each position of the span, None for a newline
        for row, place in enumerate(tokens.index.tolist()):
            if newline == "grid" and row and place // 14 != tokens.index[row - 1] // 14:
                layout.append(None)
            layout.append(row)
        rows = {row for p in survivors if (row := ([*layout, None])[p]) is not None}
        source = tokens.details.source_map()
        want = torch.tensor([[int(row) in rows for row in frame] for frame in source])
        assert torch.equal(record.kept_inside(number), want)


def test_the_budget_of_a_video_does_not_leak_into_the_next(model) -> None:
    """The release carries the adapted ratio of the first video over to the second."""
    clips = [video(5, seed=1).roll(0), video(5, seed=30, cuts=(1, 2, 3, 4))]
    counts = []
    for order in (clips, clips[::-1]):
        with WITHOUT_INNER.build().applied(model) as compressor:
            greedy(model, prompt(3, "video", 2, "video", 2), images=order, modalities="video")
            counts.append(compressor.record.tokens_after_outer)
    assert counts[0] == counts[1][::-1]
    assert counts[0][0] != counts[0][1]


@pytest.mark.parametrize("rule", ["sequential", "mean"])
@pytest.mark.parametrize("causal", [True, False])
def test_the_switches_change_the_result(model, rule, causal) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(4, cuts=(2,))], "modalities": ["video"]}
    logits = []
    for inner in (INNER, InnerConfig(4, 0.5, rule, causal)):
        with HolitomConfig(OUTER, inner).build().applied(model):
            logits.append(greedy(model, ids, **inputs).logits[0])
    assert torch.equal(*logits) == (rule == "sequential" and causal)


def test_labels_follow_the_kept_tokens(model) -> None:
    ids, inputs = prompt(5, "video", 9), {"images": [video(4, cuts=(2,))], "modalities": ["video"]}
    labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    labels[:, :8] = IGNORE_INDEX
    text = ids.shape[1] - 8
    with FULL.build().applied(model), torch.no_grad():
        out = model(input_ids=ids, labels=labels, **inputs)
        short = model(input_ids=ids, **inputs).logits
    wanted = torch.nn.functional.cross_entropy(short[0, -text - 1 : -1], ids[0, -text:])
    torch.testing.assert_close(out.loss, wanted)
    assert out.logits.shape == short.shape


def test_the_one_liner(model) -> None:
    same = holitom(model, retain_ratio=0.15, merge_layer=4)
    assert same is model
    compressor = model.visual_compressor
    assert isinstance(compressor, Compressor)
    greedy(model, prompt(5, "video", 9), images=[video(4)], modalities=["video"])
    assert compressor.record.retained_before_llm < 0.3
    assert compressor.record.inner is not None
    compressor.remove()
    holitom(model, inner=False, retain_ratio=0.15)
    assert model.visual_compressor.inner is None
    model.visual_compressor.remove()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retain_rate": 0.1}, "unknown setting retain_rate"),
        ({"inner": False, "merge_layer": 4}, "unknown setting merge_layer"),
        ({"retain_ratio": 0}, "retain_ratio = 0"),
        ({"merge_layer": 6}, "merge_layer = 6"),
        ({"merge_layer": 18}, "must be in [1, 5]"),
    ],
)
def test_the_one_liner_refuses(model, settings: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        holitom(model, **{"merge_layer": 4, **settings})
    assert message in str(error.value)
    assert hook_count(model) == 0
    assert model.visual_compressor is None


def test_applied_twice_or_to_a_foreign_model(model) -> None:
    compressor = FULL.build().apply(model)
    with pytest.raises(RuntimeError, match="applied already"):
        compressor.apply(model)
    with pytest.raises(RuntimeError, match="has a compressor already"):
        WITHOUT_INNER.build().apply(model)
    compressor.remove()
    compressor.remove()
    with pytest.raises(InputError, match="Linear"):
        FULL.build().apply(nn.Linear(2, 2))


def test_a_refused_apply_leaves_nothing_behind(model, monkeypatch) -> None:
    compressor = FULL.build()
    with monkeypatch.context() as patch:
        patch.setattr(type(model.get_vision_tower()), "last_attention", property(lambda _: nn.Linear(2, 2)))
        with pytest.raises(InputError, match="q_proj"):
            compressor.apply(model)
    assert hook_count(model) == 0
    assert model.visual_compressor is None
    with compressor.applied(model):
        assert model.visual_compressor is compressor


def test_a_stage_that_did_not_compress_is_an_error(model, monkeypatch) -> None:
    """A run that was asked to compress and did not must fail, not be scored."""
    compressor = FULL.build()
    monkeypatch.setattr(compressor.outer.compress, "config", OuterConfig(1.0, 1.0))
    monkeypatch.setattr(compressor.outer, "most_kept", OuterCompression(OUTER).most_kept)
    with compressor.applied(model), pytest.raises(RuntimeError, match="not compressed"):
        greedy(model, prompt(5, "video", 9), images=[video(4)], modalities=["video"])
    with FULL.build().applied(model), pytest.raises(RuntimeError, match="video_spans"):
        model.generate(inputs_embeds=torch.randn(1, 20, 64), max_new_tokens=1)


def test_embeddings_of_nan_features_are_refused(model) -> None:
    with torch.no_grad():
        model.model.mm_projector[0].bias.fill_(float("nan"))
    with FULL.build().applied(model), pytest.raises(InputError, match="NaN"):
        greedy(model, prompt(5, "video", 9), images=[video(4)], modalities=["video"])


@pytest.mark.parametrize("frames", [1, 2])
def test_short_videos_are_served(model, frames: int) -> None:
    with FULL.build().applied(model) as compressor:
        greedy(model, prompt(5, "video", 9), images=[video(frames)], modalities=["video"])
        assert 0 < compressor.record.tokens_after_outer[0] < frames * 196


@pytest.mark.parametrize("newline", ["one_token", "grid", "frame", "no_token"])
def test_a_video_of_which_nothing_is_left(model, newline: str) -> None:
    """A still clip at a tiny ratio rounds to no token at all; the video behind it keeps its place in the record."""
    model.config.mm_newline_position = newline
    still = video(1).repeat(6, 1, 1, 1)
    with HolitomConfig(OuterConfig(1e-5, 0.8), INNER).build().applied(model) as compressor:
        greedy(
            model, prompt(3, "video", 2, "video", 4), images=[still, video(4, seed=3, cuts=(2,))], modalities="video"
        )
        record = compressor.record
    first, second = record.tokens_after_outer
    assert first == 0 < second
    assert record.rows_kept_inside(0).shape == (0,)
    assert record.rows_kept_inside(1).shape == (second,)
    assert not record.kept_inside(0).any()


@pytest.mark.parametrize("newline", ["grid", "frame", "no_token"])
def test_other_newline_modes(model, newline: str) -> None:
    model.config.mm_newline_position = newline
    with FULL.build().applied(model) as compressor:
        greedy(model, prompt(5, "video", 9), images=[video(4, cuts=(2,))], modalities=["video"])
        index, span = compressor.record.videos[0].index, compressor.record.inner.tokens_before[0][0]
    per_row = {"grid": 14, "frame": 196, "no_token": None}[newline]
    newlines = 0 if per_row is None else len(set((index // per_row).tolist()))
    assert span == index.shape[0] + newlines
