"""LLaVA-Video: 64 frames of 13 x 13 tokens by average pooling, a newline after every grid row, the time instruction."""

from pathlib import Path

import pytest
import torch

from eval.instruments.models.random_checkpoint import make_random_checkpoint
from holitom.compressor import Compressor
from holitom.methods import available_methods
from holitom.settings import from_mapping
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.newlines import insert_newlines
from llava.model.visual_inputs import VisualEncoder
from llava.video_prompt import video_defaults
from tests.tiny_models import greedily, hook_count, prompt, video

SIDE, TOKENS, TEXT = 13, 169, 5
EVERY_ROW = {"visionzip"}  # a newline follows the rows that hold no token, too
REFUSE = {"evs", "fastvid"}  # their tokens keep positions, between which newlines have no place
SMALL = {
    "earlytom": {"similarity_threshold": 0.3, "tower_layers": [0], "inner": {"merge_layer": 4}},
    "flashvid": {"prune_layer": 4},
    "holitom": {"inner": {"merge_layer": 4}},
    "pdrop": {"drop_layers": [1, 3, 4]},
    "prunevid": {"inner": {"layer": 3}},
}
METHODS = sorted(available_methods())


@pytest.fixture(scope="module")
def video_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_checkpoint(tmp_path_factory.mktemp("llava-video"), seed=1, layout="llava-video")


@pytest.fixture(scope="module")
def video_model(video_checkpoint):
    return load_pretrained_model(video_checkpoint, torch_dtype="float32")[1]


@torch.no_grad()
def naive_video(model, clip: torch.Tensor) -> torch.Tensor:
    """Every frame by itself: the 27 x 27 patches in blocks of 2 x 2, the last row and column left over; row by row."""
    rows = []
    for frame in clip:
        patches = model.model.mm_projector(model.model.vision_tower(frame[None]))[0].view(27, 27, -1)
        for row in range(SIDE):
            for column in range(SIDE):
                block = patches[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                rows.append(block.reshape(4, -1).mean(0))
            rows.append(model.model.image_newline)
    return torch.stack(rows)


def spliced(model, clip: torch.Tensor, ids: torch.Tensor):
    with torch.no_grad():
        return model.splice_visuals(ids, None, None, [clip], None, ["video"])


def test_settings_are_read_from_the_published_fields(video_model) -> None:
    config = video_model.config
    assert (config.mm_newline_position, config.mm_spatial_pool_mode, config.mm_spatial_pool_stride) == (
        "grid",
        "average",
        2,
    )
    defaults = video_defaults(config)
    assert (defaults.num_frames, defaults.time_instruction) == (64, True)
    encoder = VisualEncoder(video_model.model, config, None)
    assert (encoder.tokens_per_frame, encoder.newline_mode) == (TOKENS, "grid")


def test_pooling_and_newlines_equal_the_naive_ones(video_model) -> None:
    clip = video(3, cuts=(1,))
    batch = spliced(video_model, clip, prompt(TEXT, "video", 4))
    start, stop = batch.video_spans[0, 0].tolist()
    assert (start, stop - start) == (TEXT, 3 * SIDE * (SIDE + 1))
    torch.testing.assert_close(batch.inputs_embeds[0, start:stop], naive_video(video_model, clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_serves_the_grid_or_refuses_clearly(video_model, name: str) -> None:
    clip, ids = video(8, cuts=(3,)), prompt(TEXT, "video", 4)
    compressor = from_mapping(available_methods()[name], SMALL.get(name, {})).build()
    with compressor.applied(video_model):
        if name in REFUSE:
            with pytest.raises(InputError, match="mm_newline_position") as error:
                spliced(video_model, clip, ids)
            assert "\n" not in str(error.value)
            return
        batch = spliced(video_model, clip, ids)
        (kept,) = compressor.record.videos
        out = greedily(video_model, ids, 3, images=[clip], modalities=["video"])
        again = greedily(video_model, ids, 3, images=[clip], modalities=["video"])
        per_layer = compressor.record.tokens_per_layer(6)
    start, stop = batch.video_spans[0, 0].tolist()
    embeds, want, place = batch.inputs_embeds[0, start:stop], [], 0
    rows = [kept.features[(kept.index // SIDE) == row] for row in range(8 * SIDE)]
    for here in rows:  # a newline follows the rows that still hold a token
        want += [*here, video_model.model.image_newline] if len(here) or name in EVERY_ROW else []
        place += len(here)
    assert place == len(kept.index), "raster order"
    assert torch.equal(embeds, torch.stack(want))
    if name in EVERY_ROW:
        assert not all(map(len, rows)), "an empty row tells the two rules apart"
    assert per_layer[0] == len(kept.index) <= 8 * TOKENS
    assert per_layer[-1] < 8 * TOKENS or name == "dycoke"
    assert torch.isfinite(torch.stack(out.logits)).all()
    assert torch.equal(torch.stack(out.logits), torch.stack(again.logits))
    assert hook_count(video_model) == 0


@pytest.mark.parametrize("name", ["holitom", "fastv", "prunevid"])
def test_a_left_padded_batch_gets_what_its_rows_get_alone(video_model, name: str) -> None:
    clips = [video(4, cuts=(2,)), video(5, seed=3)]
    rows = [prompt(TEXT, "video", 9, seed=1), prompt(2, "video", 4, seed=2)]
    ids = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], True, 256, "left")
    compressor = from_mapping(available_methods()[name], SMALL.get(name, {})).build()
    with compressor.applied(video_model):
        together = greedily(video_model, ids, 3, attention_mask=ids.ne(256), images=clips, modalities=["video"] * 2)
        for number, (row, clip) in enumerate(zip(rows, clips, strict=True)):
            alone = greedily(video_model, row, 3, images=[clip], modalities=["video"])
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)


def test_the_inner_stage_counts_the_newlines_as_part_of_the_video(video_model) -> None:
    """Half of the span, newlines included, is merged away (round half to even)."""
    compressor = from_mapping(available_methods()["holitom"], SMALL["holitom"]).build()
    with compressor.applied(video_model):
        greedily(video_model, prompt(TEXT, "video", 4), 1, images=[video(4, cuts=(2,))], modalities=["video"])
        record = compressor.record
    index = record.videos[0].index
    span = len(index) + len(set((index // SIDE).tolist()))
    assert record.inner.tokens_before == ((span,),)
    assert record.inner.tokens_after == ((round(span / 2),),)


@pytest.mark.parametrize("index", [[2, 5, 7, 9], [0, 15], []], ids=["inside", "ends", "none"])
def test_every_row_gets_its_newline_at_both_ends_and_in_the_middle(index: list[int]) -> None:
    """Two frames of 3 x 3 cells, numbered, and -1 for a newline."""
    want = []
    for row in range(6):
        want += [*(cell for cell in index if cell // 3 == row), -1]
    places = torch.tensor(index, dtype=torch.long)
    tokens = insert_newlines(places[:, None].float(), places, torch.tensor([-1.0]), "grid", 9, 2)
    assert tokens.flatten().tolist() == want


def test_tokens_are_found_behind_the_newlines_of_empty_rows(video_model) -> None:
    """An inner stage after an outer one whose newlines follow every row: what it kept, place by place."""
    outer = from_mapping(available_methods()["visionzip"], {"tokens_per_frame": 9}).build().outer
    inner = from_mapping(available_methods()["holitom"], SMALL["holitom"]).build().inner
    clips = [video(3, cuts=(2,)), video(2, seed=3)]
    with Compressor(outer, inner).applied(video_model) as compressor:
        greedily(video_model, prompt(TEXT, "video", 4, "video", 4), 1, images=clips, modalities=["video"] * 2)
        record = compressor.record
    survivors = set(record.inner.cpu_kept[0].tolist())
    for number, frames in enumerate((3, 2)):
        start, stop = record.inner.spans[0][number]
        kept = [token % SIDE + (SIDE + 1) * (token // SIDE) for token in record.videos[number].index.tolist()]
        places, place = [], start
        for cell in range(frames * SIDE * (SIDE + 1)):  # the last of every row is its newline
            if cell in kept:
                places.append(place)
            place += cell in kept or cell % (SIDE + 1) == SIDE
        assert place == stop
        want = [token in survivors for token in places]
        assert record.rows_kept_inside(number).tolist() == want
        assert any(want)
        assert not all(want)


def test_images_end_with_a_newline_as_in_llava_onevision(video_model) -> None:
    """Grid newlines are for videos; a plain image keeps its 729 patches and one newline."""
    with torch.no_grad():
        batch = video_model.splice_visuals(prompt(TEXT, "image", 4), None, None, [video(1)], [(384, 384)], ["image"])
    assert batch.inputs_embeds.shape[1] == TEXT + 730 + 4
