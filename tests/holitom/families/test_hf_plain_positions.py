"""transformers' LLaVA-NeXT-Video, VideoLLaMA3 and InternVL, unmodified, with plain positions: naive recomputation."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holitom.compressor import Compressor
from holitom.methods.earlytom import EarlyTomConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.visionzip import VisionzipConfig
from llava.errors import InputError
from tests.holitom.families.refusals import refuses
from tests.holitom.test_every_method import KEEPS_POSITIONS, METHODS, WITH_OUTER, small, without_inner
from tests.references.decoder import NaiveDecoder
from tests.references.mrope import received
from tests.references.outer import compress
from tests.tiny_models import greedily, hook_count, seen_calls
from tests.tiny_qwen_vl import FIRST_SPECIAL, TEXT, VIDEO_ID
from tests.tiny_video_models import (
    FAMILIES,
    FRAMES,
    GRIDS,
    TILES,
    alone,
    inputs_of,
    pieces_of,
    tiny_video_model,
    with_times,
)

STEPS = 4
OUTER = OuterConfig(retain_ratio=0.4, similarity_threshold=0.8)
INNER = InnerConfig(merge_layer=4)
STILL = {
    "llava_next_video": 0.8,
    "video_llama_3": 0.95,
    "internvl": 0.8,
}  # between the similarities of still and of moving tokens
REFUSED = {
    "llava_next_video": {},
    "video_llama_3": {"earlytom": "SigLIP", "visionzip": "key_metric"},
    "internvl": {"earlytom": "images and frames in one call"},
}
SINGLE, MIXED = [[5, "video", 7]], [[4, "image", 3, "video", 2, "video", 6]]
BATCH = [[5, "video", 7, "image", 3], [4, "video", 2, "video", 6]]
PROMPTS = {"single": SINGLE, "mixed": MIXED, "batch": BATCH, "batch with text": [[3, "video", 4], [40]]}
FAMILY: dict[nn.Module, str] = {}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request) -> nn.Module:
    """A tiny random model, the same for all tests; it may register capturing hooks of its own in its first call."""
    made = tiny_video_model(request.param)
    FAMILY[made] = request.param
    run(made, inputs_of(request.param, MIXED))
    return made


@pytest.fixture(autouse=True)
def untouched(model):
    """No test leaves a hook or a compressor behind."""
    hooks, names = hook_count(model), set(vars(model))
    yield
    assert hook_count(model) == hooks
    assert set(vars(model)) == names


def compressor_of(name: str) -> Compressor:
    """The method, with fewer tokens of a frame than there are."""
    return VisionzipConfig(tokens_per_frame=5).build() if name == "visionzip" else small(name)


def run(model: nn.Module, inputs: dict[str, Any], **options: Any) -> Any:
    inputs = dict(inputs)
    # random weights write placeholders too, which no step without a cache can tell from a video's
    options = {"suppress_tokens": list(range(FIRST_SPECIAL, TEXT["vocab_size"])), **options}
    return greedily(model, inputs.pop("input_ids"), STEPS, **inputs, **options)


@torch.no_grad()
def encoded(model: nn.Module, inputs: dict[str, Any], rows: list) -> tuple[list[Tensor], list[Tensor]]:
    """Features (frames, tokens, dim) and naive received attention (frames, tokens) of every video, uncompressed."""
    states: list[Tensor] = []
    if FAMILY[model] == "llava_next_video":
        attention = model.model.vision_tower.encoder.layers[2].self_attn  # the last but one of four
        arguments: tuple = (inputs["pixel_values_videos"],)
    elif FAMILY[model] == "internvl":
        attention = model.model.vision_tower.encoder.layer[3].attention
        arguments = (inputs["pixel_values"],)
    else:
        attention = model.model.vision_model.encoder.layers[3].self_attn
        arguments = tuple(inputs[name] for name in ("pixel_values_videos", "video_grid_thw", "video_merge_sizes"))

    def see(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs["hidden_states"])

    with attention.register_forward_pre_hook(see, with_kwargs=True):
        encode = model.model.get_image_features if FAMILY[model] == "internvl" else model.model.get_video_features
        features = encode(*arguments).pooler_output
    if FAMILY[model] == "internvl":
        scores = torch.stack([clip_received(attention, frame) for frame in states[0]])
        mine = internvl_frames(rows)
        return [features[own] for own in mine], [scores[own] for own in mine]
    if FAMILY[model] == "llava_next_video":
        videos = [part.reshape(arguments[0].shape[1], -1, part.shape[-1]) for part in features]
        scores = torch.stack([clip_received(attention, frame) for frame in states[0]])
        return videos, list(scores.split(arguments[0].shape[1]))
    joined = nn.Linear(32, 96)
    parts = attention.q_proj, attention.k_proj, attention.v_proj
    joined.weight.data, joined.bias.data = (
        torch.cat([getattr(each, name) for each in parts]) for name in ("weight", "bias")
    )
    shim, grids = SimpleNamespace(qkv=joined, num_heads=2, head_dim=16), inputs["video_grid_thw"].tolist()
    patches = states[0].split([math.prod(grid) for grid in grids])
    scores = [received(shim, own, t, h // 2, w // 2, 10000.0) for own, (t, h, w) in zip(patches, grids, strict=True)]
    return [part.unflatten(0, (grid[0], -1)) for part, grid in zip(features, grids, strict=True)], scores


def clip_received(attention: nn.Module, states: Tensor) -> Tensor:
    """Attention every pooled token of one frame receives; the class token asks, but is no token."""
    query, key = attention.q_proj(states), attention.k_proj(states)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = (each.double().unflatten(-1, (2, 16)) for each in (query, key))
    columns = sum((query[:, h] @ key[:, h].T / 4).softmax(-1).mean(0) for h in range(2)) / 2
    grid = columns[1:].view(8, 8)
    return torch.tensor(
        [float(grid[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].mean()) for row in range(4) for col in range(4)]
    )


def internvl_frames(rows: list) -> list[slice]:
    """Which of the pictures of a batch are the frames of each video."""
    found, now = [], 0
    for piece in (piece for row in rows for piece in row if isinstance(piece, str)):
        length = FRAMES if piece == "video" else TILES
        found += [slice(now, now + length)] if piece == "video" else []
        now += length
    return found


def tokens_left(family: str, row: list, videos: list[Any]) -> list[tuple[int, str, int]]:
    """Place in the prompt, kind and number of the video of the tokens that the outer stage leaves of one row."""
    found, now, left, seen, own = [], 0, iter(videos), -1, []
    for piece in with_times(family, row):
        if isinstance(piece, int) or piece[0] == "image":
            length = piece if isinstance(piece, int) else piece[2]
            found += [(now + at, "other", 0) for at in range(length)]
        elif piece[0] == "video":
            seen, length = seen + 1, piece[1] * piece[2]
            found += [(now + at, "video", seen) for at in next(left).index.tolist()]
        else:
            _, frame, length = piece
            if frame == 0:
                own, seen = next(left).index.tolist(), seen + 1
            found += [(now + at - frame * length, "video", seen) for at in own if at // length == frame]
        now += length
    return found


def test_received_attention_and_the_outer_stage_equal_naive_ones(model) -> None:
    for rows in (MIXED, BATCH):
        inputs = inputs_of(FAMILY[model], rows)
        features, scores = encoded(model, inputs, rows)
        outer = replace(OUTER, similarity_threshold=STILL[FAMILY[model]])
        with HolitomConfig(outer, None).build().applied(model) as compressor:
            run(model, inputs)
            videos = compressor.record.videos
        assert len(videos) == len(features) == sum(row.count("video") for row in rows)
        for kept, feature, score in zip(videos, features, scores, strict=True):
            assert score.std() > 0.01 * score.mean()
            naive = compress(feature.numpy(), score.float().numpy(), outer, "block")
            assert kept.index.tolist() == naive.index(feature.shape[1])
            torch.testing.assert_close(kept.features, torch.tensor(naive.features()).float(), atol=1e-5, rtol=0)
            assert 0 < sum(kind == "static" for *_, kind in naive.entries) < len(kept.index)


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("config", [HolitomConfig(OUTER, INNER), HolitomConfig(OUTER, None)], ids=["full", "outer"])
def test_prefill_and_cached_decode_equal_the_naive_decoder(model, config, rows) -> None:
    """Every row of a left-padded batch on its own, recomputed whole in float64; text stays where it was."""
    inputs, compressor = inputs_of(FAMILY[model], rows), config.build()
    with seen_calls(model.model.language_model) as plain:
        run(model, inputs)
    with compressor.applied(model), seen_calls(model.model.language_model) as calls:
        out = run(model, inputs)
    record, used = compressor.record, 0
    parts = SimpleNamespace(model=model.model.language_model, config=model.config.text_config, lm_head=model.lm_head)
    for number, (row, pieces) in enumerate(zip(rows, pieces_of(FAMILY[model], rows), strict=True)):
        count = row.count("video")
        videos = record.videos[used : used + count]
        left, used = tokens_left(FAMILY[model], pieces, videos), used + count
        short, whole = len(left), int(inputs["attention_mask"][number].sum())
        embeds = calls[0]["inputs_embeds"][number, -short:]
        before = plain[0]["inputs_embeds"][number, -whole:]
        for place, (at, kind, _) in enumerate(left):
            assert kind == "video" or torch.equal(embeds[place], before[at]), "text, times and images stay"
        for video, kept in enumerate(videos):
            own = embeds[[at for at, (_, _, n) in enumerate(left) if left[at][1] == "video" and n == video]]
            torch.testing.assert_close(own, kept.features)
        naive = NaiveDecoder(parts, 4, 0.5 if config.inner is not None else 0.0)
        spans = [
            [at for at, (_, kind, n) in enumerate(left) if kind == "video" and n == video] for video in range(count)
        ]
        logits, decisions = naive.run(embeds, spans)
        torch.testing.assert_close(out.logits[0][number], logits[-1].float(), atol=3e-4, rtol=0)
        if config.inner is not None:
            padding, kept = calls[0]["inputs_embeds"].shape[1] - short, record.inner.kept[number]
            assert (kept[kept >= 0] - padding).tolist() == decisions.kept
        answer = model.get_input_embeddings()(out.sequences[number, -STEPS:-1])
        every, _ = naive.run(torch.cat([embeds, answer]), spans, decisions, short)
        got = torch.stack(out.logits)[:, number]
        assert got.std() > 0.5
        torch.testing.assert_close(got, every[-STEPS:].float(), atol=6e-4, rtol=0)  # of fp32 rounding


@pytest.mark.parametrize("name", METHODS)
def test_every_method(model, name: str) -> None:
    """Bit for bit gone after ``remove``; text and images left alone; a row gets in a batch what it gets alone."""
    family = FAMILY[model]
    if name in REFUSED[family]:
        with pytest.raises(InputError, match=REFUSED[family][name]) as error:
            compressor_of(name).apply(model)
        assert "\n" not in str(error.value)
        return
    inputs, images = inputs_of(family, BATCH), inputs_of(family, [[5, "image", 4]])
    before, untouched_images = run(model, inputs), run(model, images)
    with compressor_of(name).applied(model):
        together, same = run(model, inputs), run(model, images)
        for number in range(len(BATCH)):
            single = run(model, alone(family, BATCH, number))
            assert together.sequences[number, -STEPS:].tolist() == single.sequences[0, -STEPS:].tolist()
            for got, want in zip(together.logits, single.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=2e-4, rtol=0)
    assert torch.equal(torch.stack(same.logits), torch.stack(untouched_images.logits))
    assert torch.equal(torch.stack(before.logits), torch.stack(run(model, inputs).logits))
    assert not torch.equal(together.logits[-1], before.logits[-1])


@pytest.mark.parametrize("name", ["dycoke", "evs", "holitom", "prunevid"])
def test_cached_decoding_equals_the_cache_free_one(model, name: str) -> None:
    """Without a cache every step encodes, compresses and contracts the whole prompt again."""
    assert name in WITH_OUTER
    inputs = inputs_of(FAMILY[model], BATCH)
    with without_inner(name).applied(model), seen_calls(model.model.language_model) as calls:
        want, got = run(model, inputs), run(model, inputs, use_cache=False)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=2e-4, rtol=0)
    positions = calls[0]["position_ids"][-1]
    gaps = positions.diff() > 1
    assert bool(gaps.any()) == (name in KEEPS_POSITIONS)


def test_what_the_families_refuse(model) -> None:
    inputs, family = inputs_of(FAMILY[model], SINGLE), FAMILY[model]
    compressor = HolitomConfig(OUTER, None).build()
    if family == "llava_next_video":
        settings = {
            "spatial_pool_mode": "max",
            "vision_feature_select_strategy": "full",
            "vision_feature_layer": [1, 2],
        }
        refuses(model, compressor, settings, head="leave the head out")
        return
    if family == "internvl":
        return  # see test_hf_internvl
    tokens = math.prod(GRIDS[0]) // 4
    with compressor.applied(model):
        mask = torch.arange(tokens) % 2 == 0
        ids = inputs["input_ids"][
            :, (inputs["input_ids"][0] != VIDEO_ID) | ((inputs["input_ids"][0] == VIDEO_ID).cumsum(0) % 2 == 1)
        ]
        pruned = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "video_compression_mask": mask}
        with pytest.raises(InputError, match=f"leaves {tokens // 2} of {tokens} tokens"):
            model(**pruned)
        want = model(**inputs).logits
        assert torch.equal(model(**inputs, video_compression_mask=torch.ones(tokens, dtype=torch.bool)).logits, want)


@pytest.mark.parametrize("layers", [[0], [0, 1]])
def test_frames_merge_inside_clip(model, layers: list[int]) -> None:
    """EarlyTom on a tower with a class token; its own features are those of the merged frames."""
    if FAMILY[model] != "llava_next_video":
        return
    config = EarlyTomConfig(retain_ratio=0.5, similarity_threshold=0.3, tower_layers=layers, inner=None)
    with config.build().applied(model) as compressor:
        out = run(model, inputs_of("llava_next_video", BATCH))
        merges = [video.details.merges for video in compressor.record.videos]
    assert any(each.merged_frames < each.frames for each in merges)
    assert torch.stack(out.logits).isfinite().all()
