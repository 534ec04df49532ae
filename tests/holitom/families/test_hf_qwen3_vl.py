"""What is Qwen3-VL's own, beside the table of :mod:`tests.holitom.families.test_hf_qwen2_5_vl`: timestamps between the
frames, features for early decoder layers, stages among these layers, and the class with experts."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holitom.compressor import Compressor
from holitom.hooks.decoder import late_features, stages
from holitom.hooks.prompt import contraction, deep_features, entrance
from holitom.methods.dycoke import DycokeConfig, DycokeDecodeConfig
from holitom.methods.dycoke.decode import DycokeDecodePruning
from holitom.methods.fastv import FastvConfig
from holitom.methods.flashvid import FlashVidConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig
from holitom.methods.prunevid import PruneVidConfig, PruneVidInnerConfig
from holitom.ops.merging_again import mean_of_sources
from holitom.record.saving import saved_copy
from llava.errors import InputError
from tests.holitom.families.test_hf_qwen2_5_vl import (
    BATCH,
    MIXED,
    OUTER,
    SINGLE,
    STEPS,
    WITH_TEXT,
    alone,
    check_against_naive_decoder,
    deep_of,
    given,
    grids_of,
    run,
    tokens_left,
    triples_of,
)
from tests.references.decoder import Decisions
from tests.references.mrope import NaiveDeepStack
from tests.tiny_models import hook_count, seen_calls
from tests.tiny_qwen_vl import TEXT, tiny_qwen_vl, tokens_of

FEATURES, PLACES = late_features.FEATURES, late_features.PLACES


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A tiny random model, the same for all tests."""
    return tiny_qwen_vl("qwen3_vl")


@pytest.fixture(scope="module")
def experts() -> nn.Module:
    """The same with experts."""
    return tiny_qwen_vl("qwen3_vl_moe")


@pytest.fixture(autouse=True)
def untouched(model):
    """No test leaves a hook behind."""
    yield
    assert hook_count(model) == 0


def with_inner(layer: int, rule: str = "sequential", outer: Any = OUTER) -> HolitomConfig:
    return HolitomConfig(outer, InnerConfig(merge_layer=layer, merge_rule=rule))


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        (with_inner(1), BATCH),
        (with_inner(2, "mean"), MIXED),
        (with_inner(3), SINGLE),
        (with_inner(1, "mean", outer=None), SINGLE),
        (with_inner(2, outer=None), WITH_TEXT),
    ],
    ids=["1", "2, mean", "3", "1 alone, mean", "2 alone"],
)
def test_merging_among_the_layers_that_get_features(model, config: HolitomConfig, rows: list) -> None:
    """The features behind layers 0, 1 and 2 belong to fewer tokens from the merge on."""
    check_against_naive_decoder(model, config, rows)


def without_merge(model: nn.Module, rows: list, compressor: Compressor) -> tuple[Any, Any, list]:
    """What a compressor gave for a prompt, its record, and per row the tokens that its outer stage left."""
    inputs = given(model, rows)
    with compressor.applied(model), seen_calls(model.model.language_model) as calls:
        out = run(model, inputs)
    used, left = 0, []
    for row in rows:
        count = len(grids_of([row]))
        left.append(tokens_left(model, row, compressor.record.videos[used : used + count]))
        used += count
    return SimpleNamespace(out=out, calls=calls, inputs=inputs), compressor.record, left


@pytest.mark.parametrize(("layer", "rows"), [(1, MIXED), (2, BATCH)])
def test_pruning_among_them_too(model, layer: int, rows: list) -> None:
    """FastV's own layer is 2: what it drops gets no features any more, what it keeps gets its own."""
    seen, record, left = without_merge(model, rows, FastvConfig(prune_layer=layer, prune_ratio=0.5).build())
    deep = deep_of(model, seen.inputs, None)
    used = {"image": 0, "video": 0}
    parts = SimpleNamespace(model=model.model.language_model, config=model.config.text_config, lm_head=model.lm_head)
    for number, row in enumerate(rows):
        naive, zero = NaiveDeepStack(parts, layer, 0.5), torch.zeros(TEXT["hidden_size"])
        naive.deep = [
            torch.stack(
                [
                    zero if kind == "text" else deep[kind][at][used[kind] + n][token]
                    for _, (kind, n, token) in left[number]
                ]
            )
            for at in range(3)
        ]
        naive.triples = triples_of(model, row)
        naive.triples += [tuple(axis + later for axis in naive.triples[-1]) for later in range(1, STEPS)]
        padding = seen.inputs["input_ids"].shape[1] - len(left[number])
        embeds = seen.calls[0]["inputs_embeds"][number, padding:]
        videos = [
            [at for at, (_, what) in enumerate(left[number]) if what[:2] == ("video", n)]
            for n in range(len(grids_of([row])))
        ]
        kept = record.inner.kept[number]
        kept = (kept[kept >= 0] - padding).tolist()
        assert naive.run(embeds, videos)[1].kept == kept
        answer = model.get_input_embeddings()(seen.out.sequences[number, -STEPS:-1])
        whole, _ = naive.run(torch.cat([embeds, answer]), videos, Decisions([], kept, {}), len(embeds))
        got = torch.stack(seen.out.logits)[:, number]
        torch.testing.assert_close(got, whole[-STEPS:].float(), atol=3e-4, rtol=0)
        for kind in used:
            used[kind] += sum(not isinstance(piece, int) and piece[0] == kind for piece in row)


@pytest.mark.parametrize("rows", [MIXED, BATCH], ids=["one", "two"])
def test_timestamps_stay_and_features_go_with_their_tokens(model, rows: list) -> None:
    """Every token of the text is there, in its place, also before frames of which nothing is left."""
    seen, record, left = without_merge(model, rows, HolitomConfig(OUTER, None).build())
    call, empty, used = seen.calls[0], 0, 0
    deep = deep_of(model, seen.inputs, OUTER)
    at = {"image": 0, "video": 0}
    packed: list[list[Tensor]] = [[], [], []]
    for number, row in enumerate(rows):
        real = seen.inputs["attention_mask"][number].bool()
        table = model.get_input_embeddings()(seen.inputs["input_ids"][number][real])
        own = call["inputs_embeds"][number, -len(left[number]) :]
        for place, (before, (kind, n, token)) in enumerate(left[number]):
            if kind == "text":
                assert torch.equal(own[place], table[before])
            elif kind == "video":
                assert torch.equal(own[place], record.videos[at["video"] + n].features[token])
            if kind != "text":
                for layer in range(3):
                    packed[layer].append(deep[kind][layer][at[kind] + n][token])
        assert call[PLACES][number, -len(left[number]) :].tolist() == [what[0] != "text" for _, what in left[number]]
        assert sum(what[0] == "text" for _, what in left[number]) == int(
            (~given_visual(seen.inputs, number, real)).sum()
        )
        for grid in grids_of([row]):
            frames = record.videos[used].index // (tokens_of(grid) // grid[0])
            empty += grid[0] - len(frames.unique())
            used += 1
        at = {kind: at[kind] + sum(not isinstance(piece, int) and piece[0] == kind for piece in row) for kind in at}
    for layer in range(3):
        torch.testing.assert_close(
            call[FEATURES][layer].double(), torch.stack(packed[layer]).double(), atol=1e-5, rtol=0
        )
    assert all(FEATURES not in later or later[FEATURES] is None for later in seen.calls[1:])


def given_visual(inputs: dict[str, Any], number: int, real: Tensor) -> Tensor:
    """Which tokens of a row are placeholders."""
    return inputs["mm_token_type_ids"][number][real] > 0


def test_a_frame_without_tokens_keeps_its_timestamp(model) -> None:
    """At 4 % whole frames vanish; the text is that of the prompt."""
    rows = [[5, ("video", (8, 8, 8)), 7]]
    outer = HolitomConfig(OUTER.__class__(retain_ratio=0.02, similarity_threshold=0.3), None)
    seen, record, left = without_merge(model, rows, outer.build())
    frames = set((record.videos[0].index // 16).tolist())
    assert len(frames) < 8
    text = [before for before, (kind, *_) in left[0] if kind == "text"]
    assert text == (seen.inputs["mm_token_type_ids"][0] == 0).nonzero().flatten().tolist()
    assert seen.calls[0]["inputs_embeds"].shape[1] == len(left[0])


@pytest.mark.parametrize(
    "config",
    [
        FlashVidConfig(retain_ratio=0.4, min_segments=2, prune_layer=2, llm_keep_ratio=0.5),
        PruneVidConfig(retain_ratio=0.4, inner=PruneVidInnerConfig(layer=1, keep_ratio=0.5)),
        HolitomConfig(OUTER, InnerConfig(merge_layer=2)),
    ],
    ids=["flashvid", "prunevid", "holitom"],
)
def test_inner_stages_and_the_record_see_each_video_as_one(model, config: Any) -> None:
    """Tokens are ranked over the whole video, text between its frames is none of it, and the record says so."""
    compressor = config.build()
    _, record, left = without_merge(model, MIXED, compressor)
    kept = record.inner.kept[0].tolist()
    assert kept == sorted(kept)
    for place, (_, (kind, *_)) in enumerate(left[0]):
        assert kind == "video" or place in kept
    number_of = {}
    for video in range(2):
        places = [at for at, (_, what) in enumerate(left[0]) if what[:2] == ("video", video)]
        token = [what[2] for _, what in left[0] if what[:2] == ("video", video)]
        inside = record.rows_kept_inside(video)
        assert [bool(inside[row]) for row in token] == [place in kept for place in places]
        assert record.tokens_per_layer(6, video)[-1] == sum(place in kept for place in places) < len(places)
        number_of[video] = len(places)
        scores = record.inner.scores[0]
        if not isinstance(config, PruneVidConfig):  # which ranks within groups
            count = sum(place in kept for place in places)
            best = sorted(places, key=lambda place: (-float(scores[place]), place))[:count]
            assert sorted(best) == [place for place in places if place in kept]
        saved = saved_copy(record).videos[video].stages[0]
        assert saved.kept.tolist() == inside.tolist()
        assert saved.scores.tolist() == pytest.approx(
            scores[torch.tensor(places)][torch.tensor(token).argsort()].tolist()
        )
    assert record.tokens_after_outer == [number_of[0], number_of[1]]


def test_prunevid_asks_the_text_behind_a_video(model) -> None:
    """Not the timestamps inside it: scores by loops, from the states that the scoring layer saw."""
    compressor = PruneVidConfig(retain_ratio=0.4, inner=PruneVidInnerConfig(layer=3, keep_ratio=0.5)).build()
    attention = model.model.language_model.layers[3].self_attn
    states: list[Tensor] = []
    with attention.register_forward_pre_hook(
        lambda _, args, kwargs: states.append(kwargs["hidden_states"]), with_kwargs=True
    ):
        _, record, left = without_merge(model, SINGLE, compressor)
    hidden, what = states[0][0], [kind for _, (kind, *_) in left[0]]
    last = max(at for at, kind in enumerate(what) if kind == "video")
    query = attention.q_norm(attention.q_proj(hidden).unflatten(-1, (4, 16))).detach()
    key = attention.k_norm(attention.k_proj(hidden).unflatten(-1, (2, 16))).detach()
    for place in (at for at, kind in enumerate(what) if kind == "video"):
        best = 0.0
        for asking in range(last + 1, len(what)):
            for head in range(4):
                weights = (key[:, head // 2] @ query[asking, head] * attention.scaling).softmax(0)
                best = max(best, float(weights[place]))
        assert float(record.inner.scores[0, place]) == pytest.approx(best, abs=1e-5)


def test_dycoke_attends_to_the_best_of_each_video(model) -> None:
    """In a decode step: all text, and the share of every video's entries that the current token attends to most."""
    config = DycokeConfig(
        merge_ratio=0.5, decode=DycokeDecodeConfig(layer=2, prune_ratio=0.5, similarity_threshold=1.0)
    )
    compressor = config.build()
    inner = compressor.inner
    assert isinstance(inner, DycokeDecodePruning)
    attended: list[Tensor] = []
    with compressor.applied(model):
        hook = model.model.language_model.register_forward_hook(lambda *_: attended.append(inner.attended))
        run(model, given(model, MIXED))
        hook.remove()
        left = tokens_left(model, MIXED[0], compressor.record.videos)
    for step, entries in enumerate(attended[1:], start=1):
        (row,) = entries.tolist()
        assert len(row) == len(left) + step
        for at, (_, (kind, *_)) in enumerate(left):
            assert kind == "video" or row[at]
        for video in range(2):
            places = [at for at, (_, what) in enumerate(left) if what[:2] == ("video", video)]
            assert sum(row[at] for at in places) == max(1, int(len(places) * 0.5))


def test_a_prompt_that_ends_within_a_video_is_refused(model) -> None:
    inputs = given(model, SINGLE)
    stop = int(inputs["mm_token_type_ids"][0].nonzero().max()) + 1
    cut = {key: inputs[key][:, :stop] for key in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with HolitomConfig(OUTER, None).build().applied(model), pytest.raises(InputError, match="ends within its video"):
        model(**{**inputs, **cut})


def test_the_class_with_experts(experts) -> None:
    config = with_inner(2)
    inputs = given(experts, BATCH)
    before = run(experts, inputs)
    check_against_naive_decoder(experts, config, SINGLE)
    with config.build().applied(experts):
        together = run(experts, inputs)
        for number in range(2):
            single = run(experts, alone(inputs, number, BATCH))
            torch.testing.assert_close(
                torch.stack(together.logits)[:, number], torch.stack(single.logits)[:, 0], atol=2e-4, rtol=0
            )
    assert torch.equal(torch.stack(before.logits), torch.stack(run(experts, inputs).logits))
    assert hook_count(experts) == 0


# Mutations of the code that the checks above must see.


def fails(model: nn.Module, config: HolitomConfig, rows: list = SINGLE) -> None:
    with pytest.raises(AssertionError):
        check_against_naive_decoder(model, config, rows)


def test_features_of_other_tokens_are_noticed(model, monkeypatch) -> None:
    def first_ones(tokens: Any, values: Tensor) -> Tensor:
        return values.flatten(0, 1)[: len(tokens.index)]

    monkeypatch.setattr(deep_features, "merged_again", first_ones)
    fails(model, HolitomConfig(OUTER, None))


def test_features_of_representatives_alone_are_noticed(model, monkeypatch) -> None:
    monkeypatch.setattr(deep_features, "merged_again", lambda tokens, values: values.flatten(0, 1)[tokens.index])
    fails(model, HolitomConfig(OUTER, None))


def test_features_without_the_weight_of_centres_are_noticed(model, monkeypatch) -> None:
    def plain(tokens: Any, values: Tensor) -> Tensor:
        return mean_of_sources(values, tokens.details.source_map(), len(tokens.index))

    monkeypatch.setattr(deep_features, "merged_again", plain)
    fails(model, HolitomConfig(OUTER, None))


def test_late_features_that_are_only_gathered_are_noticed(model, monkeypatch) -> None:
    def gathered(call: Any, reduced: Any, again: Any) -> None:
        late_features.reduce_late(call, reduced, None)

    monkeypatch.setattr(stages, "reduce_late", gathered)
    fails(model, with_inner(1))


def test_positions_without_gaps_are_noticed(model, monkeypatch) -> None:
    def renumbered(positions: Tensor, batch: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        short, shift = contraction.contracted_positions(positions, batch, *rest)
        short[-3:] = torch.arange(short.shape[-1])
        return short, shift

    monkeypatch.setattr(entrance, "contracted_positions", renumbered)
    fails(model, HolitomConfig(OUTER, None))


def test_tokens_before_all_timestamps_are_noticed(model, monkeypatch) -> None:
    """The order of the videos, in which the tokens of all frames stand together, is not that of the prompt."""
    inner = contraction._contract_row

    def together(states: Tensor, end: int, row: Any) -> Any:
        found = inner(states, end, row)
        if found.order is None:
            return found
        return contraction._Row(
            found.states[found.order], found.kept[found.order], found.spans, torch.arange(len(found.kept))
        )

    monkeypatch.setattr(contraction, "_contract_row", together)
    fails(model, HolitomConfig(OUTER, None))
