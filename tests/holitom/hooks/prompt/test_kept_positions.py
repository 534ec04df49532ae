"""Positions with gaps: transformers must not take them for packed sequences, with any attention implementation."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from holitom.hooks.prompt.kept_positions import KeptPositions
from holitom.methods.fastvid import FastVidConfig
from llava.errors import InputError
from tests.references import flash_stub
from tests.references.positions import logits_at
from tests.tiny_models import greedily, hook_count, prompt, video

STEPS = 4
CONFIG = FastVidConfig(retain_ratio=0.1, min_segments=2)
IMPLEMENTATIONS = ["sdpa", "eager", "flash stub"]


greedy = partial(greedily, steps=STEPS)


def use(model, attention: str) -> None:
    model.set_attn_implementation(flash_stub.register() if attention == "flash stub" else attention)


def generated_and_expected(model, ids: Tensor, clips: list[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
    """Logits of generation, those of recomputation with positions spelled out, and these positions."""
    with CONFIG.build().applied(model):
        out = greedy(model, ids, images=clips, modalities="video")
        spliced = model.splice_visuals(ids, None, None, clips, None, "video")
    answer = model.model.embed_tokens(out.sequences[:, :-1])
    whole = ids.shape[1] - len(clips) + sum(len(clip) * 196 + 1 for clip in clips)
    positions = spliced.position_ids[0].tolist() + list(range(whole, whole + STEPS - 1))
    want = logits_at(model, torch.cat([spliced.inputs_embeds, answer], dim=1)[0], positions)[-STEPS:]
    return torch.stack(out.logits)[:, 0].double(), want, positions


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_one_prompt_decodes_on_from_the_original_length(model, attention: str) -> None:
    use(model, attention)
    got, want, positions = generated_and_expected(model, prompt(5, "video", 9), [video(5, cuts=(2,))])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    newline = 5 + 5 * 196
    assert positions[:5] == list(range(5))
    assert positions[-9 - STEPS :] == list(range(newline, newline + 9 + STEPS))
    gaps = [after - before for before, after in pairwise(positions)]
    assert min(gaps) == 1
    assert max(gaps) > 1


def test_without_the_hooks_flash_attention_goes_wrong(model, monkeypatch) -> None:
    monkeypatch.setattr(KeptPositions, "apply", lambda self, decoder: self)
    for attention, right in (("sdpa", True), ("flash stub", False)):
        use(model, attention)
        got, want, _ = generated_and_expected(model, prompt(5, "video", 9), [video(5, cuts=(2,))])
        assert torch.allclose(got, want, atol=1e-4, rtol=0) == right


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_two_videos_in_one_prompt(model, attention: str) -> None:
    use(model, attention)
    got, want, _ = generated_and_expected(model, prompt(3, "video", 2, "video", 4), [video(3), video(4, seed=5)])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
def test_a_left_padded_batch_gets_what_its_rows_get_alone(model, attention: str) -> None:
    use(model, attention)
    rows, clips = [prompt(5, "video", 9, seed=1), prompt(12, seed=2)], [video(5, seed=1, cuts=(2,))]
    rows.append(prompt(2, "video", 3, seed=3))
    clips.append(video(3, seed=4))
    ids = torch.nn.utils.rnn.pad_sequence(
        [row[0] for row in rows], batch_first=True, padding_value=256, padding_side="left"
    )
    with CONFIG.build().applied(model):
        together = greedy(model, ids, attention_mask=ids.ne(256), images=clips, modalities="video")
        for number, own in enumerate(([clips[0]], [], [clips[1]])):
            alone = greedy(model, rows[number], **({"images": own, "modalities": "video"} if own else {}))
            assert together.sequences[number].tolist() == alone.sequences[0].tolist()
            for got, want in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(got[number], want[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("ids", [False, True])
def test_a_call_with_neither_mask_nor_cache(model, attention: str, ids: bool) -> None:
    use(model, attention)
    tokens = prompt(12)
    embeds = model.model.embed_tokens(tokens)
    positions = [0, 1, 2, 7, 8, 9, 20, 21, 30, 31, 32, 33]
    given = torch.tensor([positions])
    want = logits_at(model, embeds[0], positions)

    def logits() -> Tensor:
        with torch.no_grad():
            options = {"position_ids": given, "use_cache": False}
            out = model.model(tokens, **options) if ids else model.model(inputs_embeds=embeds, **options)
            return model.lm_head(out.last_hidden_state)[0].double()

    kept = KeptPositions().apply(model.model)
    torch.testing.assert_close(logits(), want, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="by name"):
        model.model(None, None, given, None, embeds, use_cache=False)
    kept.remove()
    assert not torch.allclose(logits(), want, atol=1e-2, rtol=0)


def test_apply_and_remove(model) -> None:
    ids = prompt(20)
    before = greedy(model, ids)
    kept = KeptPositions().apply(model.model)
    with pytest.raises(RuntimeError, match="applied already"):
        kept.apply(model.model)
    inside = greedy(model, ids)
    kept.remove()
    kept.remove()
    assert hook_count(model) == 0
    kept.apply(model.model).remove()  # may be used again
    assert hook_count(model) == 0
    assert torch.equal(torch.stack(inside.logits), torch.stack(before.logits))
    with pytest.raises(InputError, match="no layers"):
        KeptPositions().apply(nn.Linear(2, 2))


def test_only_methods_with_gaps_have_the_hooks(model) -> None:
    from_positions = FastVidConfig().build()
    from_positions.apply(model)
    assert hook_count(model) == 1 + len(model.model.layers)
    from_positions.remove()
    assert hook_count(model) == 0
