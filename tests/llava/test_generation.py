"""Prompts of every kind through ``generate`` and ``forward``: batches, padding, labels, errors."""

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from tests.tiny_models import pixels, prompt, video

STEPS = 6


def padded(rows: list[torch.Tensor], side: str, pad: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (1, n) of different length as one batch with its mask."""
    flat = [row[0] for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True, padding_value=pad, padding_side=side)
    return ids, ids.ne(pad)


def greedy(model, ids, **inputs) -> torch.Tensor:
    options = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
    return model.generate(ids, **options, **inputs)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_ragged_batch_answers_as_its_rows_alone(model, side: str, attention: str) -> None:
    model.set_attn_implementation(attention)
    rows = [prompt(5, "video", 9, seed=1), prompt(12, seed=2), prompt(3, "image", 4, "video", 2, seed=3)]
    visuals = [video(3, seed=1), pixels(1, seed=7), video(2, seed=9)]
    ids, mask = padded(rows, side)
    kinds = ["video", "image", "video"]
    together = greedy(model, ids, attention_mask=mask, images=visuals, modalities=kinds)
    alone = [
        greedy(model, rows[0], images=visuals[:1], modalities=kinds[:1]),
        greedy(model, rows[1]),
        greedy(model, rows[2], images=visuals[1:], modalities=kinds[1:]),
    ]
    assert together.tolist() == torch.cat(alone).tolist()


def test_cached_decoding_equals_recomputation(model) -> None:
    ids, clip = prompt(5, "video", 9), video(3)
    tokens = greedy(model, ids, images=[clip], modalities=["video"])
    for step in range(STEPS):
        longer = torch.cat([ids, tokens[:, :step]], dim=1)
        with torch.no_grad():
            logits = model(input_ids=longer, images=[clip], modalities=["video"], use_cache=False).logits
        assert logits[0, -1].argmax() == tokens[0, step]


def test_generate_returns_new_tokens_only_and_takes_what_harnesses_pass(model) -> None:
    ids = prompt(5, "video", 9)
    common = {
        "images": [video(2).half()],
        "use_cache": True,
        "max_new_tokens": 3,
        "pad_token_id": 256,
        "eos_token_id": None,
    }
    one = model.generate(ids, attention_mask=ids.ne(256), modalities=["video"], do_sample=False, num_beams=1, **common)
    two = model.generate(
        inputs=ids, attention_mask=ids.ne(256).long(), modalities="video", do_sample=False,
        temperature=0.0, top_p=None, num_beams=1, **common,
    )  # fmt: skip
    assert one.shape == (1, 3)
    assert torch.equal(one, two)


def test_the_loss_is_that_of_the_text_positions(model) -> None:
    ids = prompt(5, "video", 9)
    labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
    labels[:, :8] = IGNORE_INDEX
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels, images=[video(2)], modalities=["video"])
    text = ids.shape[1] - 8
    wanted = torch.nn.functional.cross_entropy(out.logits[0, -text - 1 : -1], ids[0, -text:])
    torch.testing.assert_close(out.loss, wanted)


def test_settings_are_read_at_the_time_of_the_call(model) -> None:
    """Harnesses write the pooling into the configuration after loading."""
    ids, clip = prompt(2, "video", 2), video(2)
    lengths = {}
    for mode, newline in (("bilinear", "one_token"), ("average", "grid"), ("max", "frame"), ("average", "no_token")):
        model.config.mm_spatial_pool_mode, model.config.mm_newline_position = mode, newline
        lengths[mode, newline] = model.splice_visuals(ids, None, None, [clip], None, "video").inputs_embeds.shape[1]
    want = {("bilinear", "one_token"): 2 * 196 + 1, ("average", "grid"): 2 * (169 + 13), ("max", "frame"): 2 * 170}
    want["average", "no_token"] = 2 * 169
    assert lengths == {key: value + 4 for key, value in want.items()}


def test_video_spans_name_the_videos(model) -> None:
    rows = [prompt(5, "video", 9, "image", 2, "video", 1, seed=1), prompt(3, "video", 2, seed=2)]
    ids, mask = padded(rows, "right")
    visuals = [video(1), pixels(), video(2), video(1)]
    spliced = model.splice_visuals(ids, mask, None, visuals, None, ["video", "image", "video", "video"])
    first = [(5, 5 + 197), (5 + 197 + 9 + 730 + 2, 5 + 197 + 9 + 730 + 2 + 393)]
    seq = first[1][1] + 1
    assert spliced.inputs_embeds.shape[1] == seq
    assert spliced.video_spans.tolist() == [[list(span) for span in first], [[seq - 2 - 197, seq - 2], [0, 0]]]


@pytest.mark.parametrize(
    ("ids", "inputs", "message"),
    [
        (prompt(5), {"images": [video(1)], "modalities": "video"}, "0 <image> placeholder"),
        (prompt(5, "a", 2, "b"), {"images": [video(1)], "modalities": "video"}, "2 <image> placeholder"),
        (prompt(5, "a", 2), {}, "no image or video"),
        (prompt(5, "a", 2), {"images": [video(3)]}, "modalities=['video']"),
        (prompt(5, "a", 2), {"images": [video(3)], "image_sizes": [(384, 384)]}, "modalities=['video']"),
        (prompt(5, "a", 2), {"images": [video(1)], "modalities": "sound"}, "'sound'"),
        (prompt(5, "a", 2), {"images": [video(1)], "modalities": ["video", "video"]}, "2 modalities"),
        (prompt(5, "a", 2), {"images": [torch.zeros(2, 3, 224, 224)], "modalities": "video"}, "(2, 3, 224, 224)"),
        (prompt(5, "a", 2), {"images": [torch.zeros(0, 3, 384, 384)], "modalities": "video"}, "(0, 3, 384, 384)"),
        (
            prompt(5, "a", 2),
            {"images": [torch.zeros(2, 3, 384, 384, dtype=torch.uint8)], "modalities": "video"},
            "uint8",
        ),
        (
            prompt(5, "a", 2),
            {"images": [video(2).index_fill(0, torch.tensor(1), torch.nan)], "modalities": "video"},
            "[1]",
        ),
        (prompt(5, "a", 2), {"images": [video(2) / 0], "modalities": "video"}, "NaN or infinite"),
        (prompt(5, "a", 2), {"images": [video(1)], "image_sizes": [], "modalities": "video"}, "0 image_sizes"),
        (prompt(5, "a", 2), {"images": video(3), "modalities": ["video"]}, "images=[frames]"),
        (prompt(5, "a", 2), {"images": [None], "modalities": ["video"]}, "NoneType"),
        (prompt(5, "a", 2)[0], {"images": [video(1)], "modalities": "video"}, "input_ids[None]"),
        (prompt(5, "a", 2).float(), {"images": [video(1)], "modalities": "video"}, "torch.float32"),
        (prompt(5, "a", 2)[:, :0], {"images": [video(1)], "modalities": "video"}, "(1, 0)"),
        (
            prompt(5, "a", 2),
            {"images": [video(1)], "modalities": "video", "attention_mask": torch.ones(1, 3)},
            "attention_mask of shape (1, 3)",
        ),
    ],
)
def test_wrong_prompts_get_one_clear_line(model, ids, inputs: dict, message: str) -> None:
    for call in (lambda: model.generate(ids, max_new_tokens=1, **inputs), lambda: model(input_ids=ids, **inputs)):
        with pytest.raises(InputError) as error:
            call()
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_labels_need_all_logits(model) -> None:
    ids = prompt(9)
    with pytest.raises(InputError, match="logits_to_keep"):
        model(input_ids=ids, labels=ids, logits_to_keep=1)


def test_a_placeholder_in_a_later_turn_is_refused(model) -> None:
    cache = model(input_ids=prompt(5), use_cache=True).past_key_values
    with pytest.raises(InputError, match="no image or video"):
        model(input_ids=prompt(2, "video", 2), past_key_values=cache)


def test_a_stride_of_zero_is_refused(model) -> None:
    model.config.mm_spatial_pool_stride = 0
    with pytest.raises(InputError, match="mm_spatial_pool_stride = 0"):
        model.generate(prompt(2, "video", 2), images=[video(1)], modalities="video", max_new_tokens=1)


def test_a_prompt_beyond_the_context_is_refused_not_cut(model) -> None:
    model.config.tokenizer_model_max_length = 300
    with pytest.raises(InputError, match="402 tokens, more than the 300"):
        model.generate(prompt(5, "video", 4), images=[video(2)], modalities=["video"], max_new_tokens=1)
