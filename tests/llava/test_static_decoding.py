"""The static decode step and its loop against transformers' own, without compression."""

import copy
import threading
import weakref

import pytest
import torch
from torch import Tensor
from transformers import TextStreamer

from llava.errors import InputError
from llava.mm_utils import KeywordsStoppingCriteria
from llava.model import decode_loop, static_decoding
from llava.model.decode_loop import StaticLoop
from llava.model.static_decoding import StaticDecoder
from tests.references.replay import SYNCS, Recording, Replay
from tests.tiny_models import greedily, hook_count, prompt, video

STEPS = 24
CLIP = {"images": [video(2)], "modalities": ["video"]}
OPTIONS = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}


@pytest.fixture
def model(loaded):
    """The tiny model with sharper attention: its answers change from token to token, so that a wrong step shows."""
    for layer in loaded[1].model.layers:
        for values in layer.self_attn.q_proj.parameters():
            values.data *= 4
    return loaded[1]


def batch_of_three() -> tuple[Tensor, dict]:
    rows = [prompt(5, "video", 9, seed=1), prompt(12, seed=2), prompt(3, "video", 4, "video", 2, seed=3)]
    ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], True, 256, "left")
    visuals = [video(3, seed=1), video(1, seed=7), video(2, seed=9)]
    return ids, {"images": visuals, "modalities": ["video"] * 3, "attention_mask": ids.ne(256)}


def logits_of(out) -> Tensor:
    return torch.stack(out.logits)


@pytest.mark.parametrize("decoding", ["preallocated", "static"])
@pytest.mark.parametrize("rows", [1, 3])
def test_equal_to_transformers_own_loop(model, decoding: str, rows: int) -> None:
    ids, inputs = (prompt(5, "video", 9), CLIP) if rows == 1 else batch_of_three()
    want = greedily(model, ids, STEPS, **inputs)
    got = greedily(model, ids, STEPS, decoding=decoding, **inputs)
    torch.testing.assert_close(logits_of(got), logits_of(want), atol=1e-4, rtol=0)
    assert torch.equal(got.sequences, want.sequences)
    assert all(len(set(row.tolist())) >= 8 for row in want.sequences), "answers of one token show little"
    assert torch.equal(model.generate(ids, decoding=decoding, **OPTIONS, **inputs), want.sequences)
    for one, other in zip(got.past_key_values.layers, want.past_key_values.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=0)
    assert hook_count(model) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_near_to_float32_as_the_eager_path(model, dtype: torch.dtype) -> None:
    """Teacher-forced by a processor, so that no near tie sends the two ways apart."""
    ids = prompt(5, "video", 9)
    exact = greedily(model, ids, STEPS, **CLIP)
    forced = exact.sequences[0]

    def follow(given: Tensor, scores: Tensor) -> Tensor:
        return torch.full_like(scores, -torch.inf).index_fill(1, forced[given.shape[1]][None], 0)

    model.to(dtype)
    errors = {}
    for decoding in ("eager", "static"):
        out = greedily(model, ids, STEPS, decoding=decoding, logits_processor=[follow], **CLIP)
        assert torch.equal(out.sequences, exact.sequences)
        errors[decoding] = float((logits_of(out) - logits_of(exact)).norm())
    assert 0 < errors["static"] <= 1.2 * errors["eager"]


@pytest.mark.parametrize("options", [
    {"repetition_penalty": 1.7},
    {"do_sample": True, "temperature": 0.9, "top_k": 40},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 5, "eos_token_id": 31},
])  # fmt: skip
def test_processors_and_sampling_draw_the_same_tokens(model, options: dict) -> None:
    ids, inputs = batch_of_three()
    answers = []
    for decoding in ("eager", "static"):
        torch.manual_seed(3)
        answers.append(model.generate(ids, decoding=decoding, **{**OPTIONS, **options}, **inputs))
    assert torch.equal(*answers)
    assert len(set(answers[0].flatten().tolist())) > 10


@pytest.mark.parametrize("every", [1, 3, 8, 100])
def test_rows_end_where_they_end_in_the_eager_loop(model, every: int) -> None:
    ids, inputs = batch_of_three()
    options = {**OPTIONS, "repetition_penalty": 1.7}
    free = model.generate(ids, **options, **inputs)
    ends = [int(free[0, 4]), int(free[2, 9])]  # row 1 need not end at all
    want = model.generate(ids, **{**options, "eos_token_id": ends}, **inputs)
    assert bool((want == 256).any()), "no row was padded"
    got = model.generate(
        ids, custom_generate=StaticLoop(graphs=False, check_every=every), **{**options, "eos_token_id": ends}, **inputs
    )
    assert torch.equal(got, want)
    one = {**OPTIONS, "eos_token_id": [int(model.generate(prompt(9), **options)[0, 6])], "repetition_penalty": 1.7}
    want = greedy_dict(model, prompt(9), one)
    got = greedy_dict(model, prompt(9), one, custom_generate=StaticLoop(graphs=False, check_every=every))
    assert want.sequences.shape[1] < STEPS
    assert torch.equal(got.sequences, want.sequences)
    assert len(got.logits) == len(want.logits)
    for layer, other in zip(got.past_key_values.layers, want.past_key_values.layers, strict=True):
        assert layer.keys.shape == other.keys.shape


def greedy_dict(model, ids: Tensor, options: dict, **inputs):
    return model.generate(ids, return_dict_in_generate=True, output_logits=True, **options, **inputs)


def test_stopping_criteria_of_harnesses(loaded, model) -> None:
    tokenizer = loaded[0]
    ids = prompt(9)
    options = {**OPTIONS, "repetition_penalty": 1.7}
    word = tokenizer.decode(model.generate(ids, **options)[0, 5:7])
    answers = [
        model.generate(
            ids, decoding=decoding, stopping_criteria=[KeywordsStoppingCriteria([word], tokenizer, ids)], **options
        )
        for decoding in ("eager", "static")
    ]
    assert answers[0].shape[1] < STEPS
    assert torch.equal(*answers)


def test_a_later_turn_continues_the_cache(model) -> None:
    """The cache of a static answer is that of the eager one: forward goes on from it."""
    ids = prompt(5, "video", 9)
    logits = []
    for decoding in ("eager", "static"):
        out = greedily(model, ids, 5, decoding=decoding, **CLIP)
        with torch.no_grad():
            more = torch.cat([out.sequences[:, -1:], prompt(7)], dim=1)
            logits.append(model(input_ids=more, past_key_values=out.past_key_values).logits)
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0)


def static_decoder(model, ids: Tensor, new_tokens: int, **inputs) -> StaticDecoder:
    """A decoder that has a prompt and its first token."""
    model.generate(ids, decoding="static", **{**OPTIONS, "max_new_tokens": new_tokens}, **inputs)
    return model.idle_decoder._decoders[-1]


def test_a_replayed_step_serves_all_tokens_and_later_prompts(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recorded run, repeated without Python, as a CUDA graph would be: nothing of a step may lie on the host."""
    monkeypatch.setattr(StaticDecoder, "_capture", recorded)
    monkeypatch.setattr(decode_loop, "check_graphs", lambda device: None)
    prompts = [(prompt(5, "video", 9), CLIP), (prompt(31, seed=5), {}), (prompt(5, "video", 40, seed=4), CLIP)]
    want = [model.generate(ids, **OPTIONS, **inputs) for ids, inputs in prompts]
    penalised = [model.generate(ids, repetition_penalty=1.7, **OPTIONS, **inputs) for ids, inputs in prompts]
    decoders = []
    for number in (0, 2, 0, 1):
        ids, inputs = prompts[number]
        assert torch.equal(model.generate(ids, decoding="graphs", **OPTIONS, **inputs), want[number])
        got = model.generate(ids, decoding="graphs", repetition_penalty=1.7, **OPTIONS, **inputs)
        assert torch.equal(got, penalised[number])
        decoders += model.idle_decoder._decoders
    assert all(decoder is decoders[0] for decoder in decoders)
    assert set(decoders[0]._graphs) == {True, False}


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[StaticDecoder]:
    """Decoders that captured a graph, in order; a recording stands in for it."""
    found = []
    monkeypatch.setattr(StaticDecoder, "_capture", lambda decoder, run: found.append(decoder) or recorded(decoder, run))
    monkeypatch.setattr(decode_loop, "check_graphs", lambda device: None)
    return found


def test_prompts_that_alternate_capture_once_each(model, captures) -> None:
    """700 and 6,300 tokens in turn, as of a model with and without compression, on a smaller scale."""
    options = {**OPTIONS, "max_new_tokens": 6}
    short, long = prompt(9), prompt(600, seed=1)
    want = [model.generate(ids, **options) for ids in (short, long)]
    for _ in range(3):
        for ids, answer in zip((short, long), want, strict=True):
            assert torch.equal(model.generate(ids, decoding="graphs", **options), answer)
    assert len(captures) == len(set(captures)) == 2


def test_the_decoder_unused_for_longest_goes_first(model, captures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoding, "KEPT", 2)
    options = {**OPTIONS, "max_new_tokens": 2}
    lengths = {name: prompt(length, seed=length) for name, length in {"a": 9, "b": 600, "c": 1700}.items()}
    alive = []
    for name, captured in zip(
        "abacab", (1, 2, 2, 3, 3, 4), strict=True
    ):  # c takes the place of b, which then captures again
        model.generate(lengths[name], decoding="graphs", **options)
        assert len(captures) == captured, f"after {name}"
        alive.append(len(model.idle_decoder._decoders))
    assert alive == [1, 2, 2, 2, 2, 2]


def test_the_longest_unused_is_gone_before_the_next_takes_its_memory(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_decoding, "KEPT", 2)
    for length in (9, 600):
        static_decoder(model, prompt(length), 2)
    first = weakref.ref(model.idle_decoder._decoders[0])
    allocate, seen = static_decoding.allocate, []
    monkeypatch.setattr(static_decoding, "allocate", lambda *given: seen.append(first()) or allocate(*given))
    static_decoder(model, prompt(1700), 2)
    assert seen == [None]


def recorded(decoder: StaticDecoder, run) -> Replay:
    """Capturing a CUDA graph executes nothing; a recording does, so its effect is taken back."""
    state = [decoder.token, decoder.step_number, decoder.ids, decoder.logits]
    state += [tensor for group in decoder.groups for tensor in (group.slot, group.bias)]
    before = [tensor.clone() for tensor in state]
    replay = Replay(run)
    for tensor, value in zip(state, before, strict=True):
        tensor.copy_(value)
    return replay


def test_a_step_never_asks_the_host(model) -> None:
    decoder = static_decoder(model, prompt(5, "video", 9), 4, **CLIP)
    decoder.used = 0
    with Recording() as recording:
        decoder.step()
    assert not SYNCS & set(recording.names())
    layers = model.config.num_hidden_layers
    assert len(recording.names()) <= 35 * layers + 20, "a step of many more operations than it needs"


def test_a_full_cache_is_refused(model) -> None:
    decoder = static_decoder(model, prompt(9), 3)
    decoder.used = 0
    for _ in range(3):
        decoder.step()
    with pytest.raises(InputError, match="room for 3 new tokens"):
        decoder.step()


def test_nothing_of_an_earlier_prompt_is_left(model) -> None:
    ids = prompt(9)
    want = model.generate(ids, **OPTIONS)
    decoder = static_decoder(model, prompt(5, "video", 9), STEPS, **CLIP)
    for group in decoder.groups:
        for tensor in (*group.keys, *group.values, group.bias, group.cos, group.sin):
            tensor.fill_(torch.nan)
    decoder.logits.fill_(torch.nan)
    long = static_decoder(model, prompt(5, "video", 12, seed=3), STEPS, **CLIP)
    assert long is decoder
    assert torch.equal(model.generate(ids, decoding="static", **OPTIONS), want)
    same = model.generate(prompt(5, "video", 9), **OPTIONS, **CLIP)
    assert torch.equal(model.generate(prompt(5, "video", 9), decoding="static", **OPTIONS, **CLIP), same)


def test_moved_weights_make_new_tensors(model) -> None:
    """A graph reads the weights where they were."""
    decoder = static_decoder(model, prompt(9), STEPS)
    assert static_decoder(model, prompt(11), STEPS) is decoder
    assert static_decoder(model, prompt(5, "video", 9), STEPS, **CLIP) is not decoder, "longer than its tensors"
    decoder = static_decoder(model, prompt(9), STEPS)
    model.lm_head.weight.data = model.lm_head.weight.data.flip(0)
    other = static_decoder(model, prompt(9), STEPS)
    assert other is not decoder
    assert model.idle_decoder._decoders == [other], "what reads the weights where they were is of no use"
    assert torch.equal(model.generate(prompt(9), decoding="static", **OPTIONS), model.generate(prompt(9), **OPTIONS))
    assert not copy.deepcopy(model).idle_decoder._decoders
    model.idle_decoder.clear()
    assert not model.idle_decoder._decoders


def test_two_threads_do_not_share_tensors(model) -> None:
    prompts = [prompt(5 + number, seed=number) for number in range(4)]
    want = [model.generate(ids, repetition_penalty=1.7, **OPTIONS) for ids in prompts]
    got: dict[int, list[Tensor]] = {}

    def work(part: int) -> None:
        got[part] = [
            model.generate(ids, repetition_penalty=1.7, decoding="static", **OPTIONS) for ids in prompts[part::2]
        ]

    threads = [threading.Thread(target=work, args=(part,)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[number % 2][number // 2], want[number]) for number in range(4))


def test_an_answer_within_an_answer_has_tensors_of_its_own(model) -> None:
    """What two threads may do at any time, at a certain time: the second answer begins while the first is running."""
    want = [model.generate(prompt(9), **OPTIONS), model.generate(prompt(12, seed=4), **OPTIONS)]
    model.generate(prompt(9), decoding="static", **OPTIONS)  # leaves a decoder idle
    inside = []

    def interrupt(ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] in (3, 4):
            inside.append(model.generate(prompt(12, seed=4), decoding="static", **OPTIONS))
        return scores

    got = model.generate(prompt(9), decoding="static", logits_processor=[interrupt], **OPTIONS)
    assert torch.equal(got, want[0])
    assert all(torch.equal(answer, want[1]) for answer in inside)
    assert len(inside) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoding": "fast"}, "decoding = 'fast' is unknown: it must be one of eager, preallocated, static, graphs"),
        ({"decoding": "graphs"}, "needs a CUDA device, the model is on cpu"),
        ({"decoding": "static", "num_beams": 2}, "not beam search"),
        ({"decoding": "static", "output_hidden_states": True}, "returns no attentions and hidden states"),
        ({"decoding": "static", "cache_implementation": "static"}, "a new cache of the default kind"),
        ({"decoding": "static", "prefill_chunk_size": 4}, "prefill_chunk_size"),
        ({"decoding": "static", "streamer": "later"}, "does not go with streamer"),
    ],
)
def test_what_it_does_not_do_is_refused(loaded, model, arguments: dict, message: str) -> None:
    tokenizer = loaded[0]
    if "streamer" in arguments:
        arguments = {**arguments, "streamer": TextStreamer(tokenizer)}
    with pytest.raises(InputError) as error:
        model.generate(prompt(5), **{**OPTIONS, **arguments})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_hooks_that_would_be_passed_by_are_refused(model) -> None:
    for module in (model.model, model.model.layers[2]):
        with (
            module.register_forward_hook(lambda *_: None),
            pytest.raises(InputError, match="hooks that static decoding would pass by"),
        ):
            model.generate(prompt(5), decoding="static", **OPTIONS)
    assert model.generate(prompt(5), decoding="static", **OPTIONS).shape == (1, STEPS)


def test_beams_and_sampled_copies_on_a_preallocated_cache(model) -> None:
    ids, inputs = batch_of_three()
    options = {**OPTIONS, "num_beams": 3, "num_return_sequences": 2}
    want = model.generate(ids, **options, **inputs)
    assert torch.equal(model.generate(ids, decoding="preallocated", **options, **inputs), want)
