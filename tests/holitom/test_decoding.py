"""Every method decodes alike in every way: the static step knows shortened layers, gaps and moved positions."""

from typing import Any

import pytest
import torch
from torch import Tensor

from holitom import available_methods
from holitom.compressor import Compressor
from holitom.hooks.decoder.pruning import pruning_stages
from holitom.hooks.decoder.rules import DecoderStage
from holitom.methods.holitom import HolitomConfig
from holitom.methods.prunevid.inner import question_pruning
from holitom.settings import from_mapping
from llava.errors import InputError
from llava.model.static_cache import PromptCache
from llava.model.visual_compressor import LayerPrompt
from tests.holitom.test_every_method import METHODS, SMALL, small
from tests.references.decoder import NaiveDecoder
from tests.tiny_models import greedily, pixels, prompt, video

STEPS = 20
CLIP = {"images": [video(5, cuts=(2,))], "modalities": ["video"]}
OPTIONS = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
ACTS_IN_DECODE = {"dycoke decode"}


@pytest.fixture
def model(loaded):
    """The tiny model with sharper attention: its answers change from token to token, so that a wrong step shows."""
    for layer in loaded[1].model.layers:
        for values in layer.self_attn.q_proj.parameters():
            values.data *= 4
    return loaded[1]


def ragged() -> tuple[Tensor, dict[str, Any]]:
    """Rows with two videos and an image, with text alone, and with one video."""
    rows = [prompt(5, "video", 4, "image", 3, "video", 2, seed=1), prompt(12, seed=2), prompt(3, "video", 4, seed=3)]
    visuals = [video(4, seed=1, cuts=(2,)), pixels(seed=8), video(5, seed=4), video(4, seed=9, cuts=(3,))]
    ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], True, 256, "left")
    kinds = ["video", "image", "video", "video"]
    return ids, {"images": visuals, "modalities": kinds, "attention_mask": ids.ne(256)}


def compressors() -> dict[str, Compressor]:
    """Every registered method, and pruning in two stages of which the first numbers the kept tokens anew."""
    stages = [DecoderStage(1, lambda length: length // 2, renumbers=True), DecoderStage(4, lambda length: length // 5)]
    more = {
        "renumbered": Compressor(None, pruning_stages(stages)),
        "prunevid inner": from_mapping(available_methods()["prunevid"], {"inner": {"layer": 2}}).build(),
        "dycoke decode": from_mapping(available_methods()["dycoke"], {"decode": {}}).build(),
    }
    return {name: small(name) for name in METHODS} | more


NAMES = sorted(compressors())


@pytest.mark.parametrize("rows", ["one", "ragged"])
@pytest.mark.parametrize("name", NAMES)
def test_every_method_gives_the_tokens_of_the_eager_loop(model, name: str, rows: str) -> None:
    ids, inputs = (prompt(5, "video", 9), CLIP) if rows == "one" else ragged()
    with compressors()[name].applied(model):
        want = greedily(model, ids, STEPS, **inputs)
        for decoding in ("preallocated", "static"):
            if decoding == "static" and name in ACTS_IN_DECODE:
                with pytest.raises(InputError, match="in every decode step"):
                    greedily(model, ids, STEPS, decoding=decoding, **inputs)
                continue
            got = greedily(model, ids, STEPS, decoding=decoding, **inputs)
            torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=5e-4, rtol=0)
            assert torch.equal(got.sequences, want.sequences)
            assert torch.equal(model.generate(ids, decoding=decoding, **OPTIONS, **inputs), want.sequences)
            lengths = [[layer.keys.shape[2] for layer in out.past_key_values.layers] for out in (got, want)]
            assert lengths[0] == lengths[1]
    assert all(len(set(row.tolist())) >= 4 for row in want.sequences), "answers of one token show little"


def test_one_set_of_tensors_serves_vanilla_and_compressed_prompts_in_turn(model) -> None:
    """Layers that are alike in one prompt need not be in the next; one frame is so short that all sizes are equal."""
    ids = prompt(5, "video", 9)
    long, short = CLIP, {"images": [video(1)], "modalities": ["video"]}
    runs = [(None, long), ("holitom", long), ("pdrop", long), ("prunevid inner", long), (None, long), ("fastvid", long)]
    for name, clip in [*runs, (None, short), ("fastv", short), ("pdrop", short), (None, short)]:
        compressor = Compressor(None, None) if name is None else compressors()[name]
        with compressor.applied(model):
            want = model.generate(ids, **OPTIONS, **clip)
            assert torch.equal(model.generate(ids, decoding="static", **OPTIONS, **clip), want), name


@pytest.mark.parametrize(
    "inner", [question_pruning(2, 0.3), pruning_stages([DecoderStage(2, lambda length: length // 3)])]
)
def test_a_text_row_longer_than_what_is_left_of_a_video(model, inner) -> None:
    """The longest row keeps its length, so that only the padding tells that the other one was shortened."""
    rows = [prompt(5, "video", 9, seed=1), prompt(450, seed=2)]
    ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], True, 256, "left")
    inputs = {"images": [video(2)], "modalities": ["video"], "attention_mask": ids.ne(256)}
    with Compressor(None, inner).applied(model):
        want = greedily(model, ids, 8, **inputs)
        got = greedily(model, ids, 8, decoding="static", **inputs)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=5e-4, rtol=0)


def test_text_alone_passes_where_a_video_would_be_refused(model) -> None:
    with compressors()["dycoke decode"].applied(model):
        want = model.generate(prompt(20), **OPTIONS)
        assert torch.equal(model.generate(prompt(20), decoding="static", **OPTIONS), want)


def test_a_later_turn_after_a_static_answer(model) -> None:
    """The cache is handed back with shortened layers, and the hooks still know it."""
    ids = prompt(5, "video", 9)
    with compressors()["holitom"].applied(model):
        logits = []
        for decoding in ("eager", "static"):
            out = greedily(model, ids, 5, decoding=decoding, **CLIP)
            more = torch.cat([out.sequences[:, -1:], prompt(7)], dim=1)
            with torch.no_grad():
                logits.append(model(input_ids=more, past_key_values=out.past_key_values).logits)
    torch.testing.assert_close(*logits, atol=5e-4, rtol=0)


def test_static_tokens_are_those_of_a_naive_decoder_without_cache(model) -> None:
    """HoliTom's inner stage, recomputed for every token by code that shares nothing with the step."""
    ids = prompt(5, "video", 9)
    compressor = small("holitom")
    with compressor.applied(model):
        out = greedily(model, ids, 8, decoding="static", **CLIP)
        spliced = model.splice_visuals(ids, None, None, CLIP["images"], None, "video")
    config = from_mapping(HolitomConfig, SMALL["holitom"]).inner
    naive = NaiveDecoder(model, config.merge_layer, config.merge_ratio, config.merge_rule, config.causal)
    embeds, spans = spliced.inputs_embeds[0], [tuple(spliced.video_spans[0, 0].tolist())]
    _, decisions = naive.run(embeds, spans)
    answer = model.model.embed_tokens(out.sequences[0, :-1])
    want, _ = naive.run(torch.cat([embeds, answer]), spans, decisions, prompt=len(embeds))
    torch.testing.assert_close(torch.stack(out.logits)[:, 0].double(), want[-8:], atol=1e-3, rtol=0)


def test_padding_of_another_length_is_noticed() -> None:
    keys = [torch.zeros(1, 1, 5, 2)]
    with pytest.raises(RuntimeError, match="holds 5 tokens, its padding is known for 4"):
        PromptCache(keys, keys, [LayerPrompt(torch.ones(1, 4, dtype=torch.bool))], torch.zeros(1, 1), 3)


@pytest.mark.parametrize("name", ["holitom", "pdrop", "prunevid inner"])
@pytest.mark.parametrize("new", [1, 3])
def test_a_cache_whose_hooks_were_removed_is_refused(model, name: str, new: int) -> None:
    with compressors()[name].applied(model):
        cache = greedily(model, prompt(5, "video", 9), 3, **CLIP).past_key_values
    with pytest.raises(RuntimeError, match=r"hooks were removed in between: prefill again"):
        model(input_ids=prompt(new), past_key_values=cache)
    cache.crop(-cache.get_seq_length())  # ``reset`` of transformers 5.17 keeps the length
    with torch.no_grad():
        for _ in range(2):  # an emptied cache serves a plain prompt, and goes on
            model(input_ids=prompt(new), past_key_values=cache)
    assert cache.get_seq_length() == 2 * new


def test_a_cache_that_lost_nothing_inside_goes_on_after_removal(model) -> None:
    with compressors()["uniform"].applied(model):
        cache = greedily(model, prompt(5, "video", 9), 3, **CLIP).past_key_values
    before = cache.get_seq_length()
    model(input_ids=prompt(1), past_key_values=cache)
    assert cache.get_seq_length() == before + 1
