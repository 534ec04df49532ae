"""transformers' own ways of generating, on both runtimes: the tokens of plain decoding, or one line at the door."""

import copy
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import StaticCache

from holitom import available_methods, holitom
from holitom.settings import from_mapping
from llava.errors import InputError
from tests.llava.test_against_transformers import expanded
from tests.tiny_models import VIDEO_ID, hook_count, hugging_face_model, prompt, video

OUTER = ["uniform", "evs", "visionzip", "fastvid"]
SMALL = {"fastvid": {"min_segments": 3}}
OPTIONS = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 256}
REPEATED = torch.tensor([[7, 8, 9, 7, 8, 9, 7, 8]])  # prompt lookup finds candidates before the first token
FRAMES = 4


@pytest.fixture
def hugging(checkpoint) -> nn.Module:
    return hugging_face_model(checkpoint)


@pytest.fixture(scope="module")
def draft(checkpoint) -> nn.Module:
    """A draft model that is often wrong, so that candidates are taken and refused."""
    model = hugging_face_model(checkpoint)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        model.lm_head.weight.add_(torch.randn(model.lm_head.weight.shape, generator=generator) * 0.03)
    return model


def their_inputs() -> tuple[Tensor, dict[str, Any]]:
    ids = torch.cat([prompt(5, "video"), REPEATED], dim=1)
    wide = expanded(ids, [FRAMES * 196 + 1], [VIDEO_ID])
    clip = video(FRAMES, cuts=(2,))
    return wide, {"attention_mask": torch.ones_like(wide), "pixel_values_videos": clip[None]}


def new_tokens(model: nn.Module, ids: Tensor, inputs: dict[str, Any], **more: Any) -> list[int]:
    return model.generate(ids, **inputs, **OPTIONS, **more)[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("name", OUTER)
def test_assisted_decoding_under_an_outer_stage(name: str, hugging, draft) -> None:
    """Candidates come with the prompt in one call, and the cache is cropped where they are refused."""
    ids, inputs = their_inputs()
    with from_mapping(available_methods()[name], SMALL.get(name, {})).build().applied(hugging) as compressor:
        want = new_tokens(hugging, ids, inputs)
        assert 0 < compressor.record.tokens_after_outer[0] < FRAMES * 196
        for mode in ({"assistant_model": draft}, {"prompt_lookup_num_tokens": 3}):
            assert new_tokens(hugging, ids, inputs, **copy.copy(mode)) == want
    assert want != new_tokens(hugging, ids, inputs)  # compression decides something here


def test_a_cache_cropped_into_the_video_is_refused(hugging) -> None:
    ids, inputs = their_inputs()
    with from_mapping(available_methods()["uniform"], {}).build().applied(hugging), torch.no_grad():
        for crop in (REPEATED.shape[1], REPEATED.shape[1] + 1):
            cache = hugging(input_ids=ids, **inputs).past_key_values
            cache.crop(-crop)
            mask = torch.ones(1, ids.shape[1] - crop + 2, dtype=torch.long)
            call = {"input_ids": REPEATED[:, :2], "past_key_values": cache, "attention_mask": mask}
            if crop > REPEATED.shape[1]:
                with pytest.raises(RuntimeError, match="cropped into the prompt's videos"):
                    hugging(**call)
                continue
            short = expanded(torch.cat([prompt(5, "video"), REPEATED[:, :2]], dim=1), [FRAMES * 196 + 1], [VIDEO_ID])
            got = hugging(**call).logits[:, -2:]
            want = hugging(input_ids=short, pixel_values_videos=inputs["pixel_values_videos"]).logits[:, -2:]
            torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit"])
def test_assisted_decoding_under_an_inner_stage_is_refused_at_the_door(mode: str, hugging, draft) -> None:
    """The last token of the prefill scores the prompt: it would be a candidate. No model runs before the refusal."""
    ids, inputs = their_inputs()
    before = hook_count(hugging)
    holitom(hugging, retain_ratio=0.2, merge_layer=4)
    value = draft if mode == "assistant_model" else 2
    ran: list[str] = []
    towers = hugging.model.vision_tower.register_forward_hook(lambda *_: ran.append("tower"))
    drafts = draft.register_forward_pre_hook(lambda *_: ran.append("draft"))
    with towers, drafts:
        with pytest.raises(InputError, match=f"{mode} = .* is not supported while tokens are compressed inside"):
            new_tokens(hugging, ids, inputs, **{mode: value})
        config = copy.deepcopy(hugging.generation_config)  # also where a configuration says it
        config.prompt_lookup_num_tokens = 2
        with pytest.raises(InputError, match="prompt_lookup_num_tokens = 2"):
            hugging.generate(ids, **inputs, generation_config=config)
    assert not ran
    hugging.visual_compressor.remove()
    assert "generate" not in vars(hugging)
    assert hook_count(hugging) == before
    assert len(new_tokens(hugging, ids, inputs, prompt_lookup_num_tokens=3)) == 8


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({"assistant_early_exit": 2}, "assistant_early_exit = 2 is not supported"),
        ({"guidance_scale": 1.5}, "guidance_scale = 1.5 needs negative_prompt_ids"),
        ({"prefill_chunk_size": 64}, "prefill_chunk_size = 64 is not supported"),
        ({"assistant_model": "self"}, "assistant_model = LlavaQwenForCausalLM is not supported"),
    ],
)
def test_our_runtime_refuses_at_the_door(mode: dict, words: str, compressed: bool, model) -> None:
    if compressed:
        holitom(model, retain_ratio=0.2, merge_layer=4)
    mode = {name: model if value == "self" else value for name, value in mode.items()}
    ran = []
    with model.get_vision_tower().register_forward_hook(lambda *_: ran.append(1)):
        for inputs in ({"images": [video(2)], "modalities": ["video"]}, {}):
            ids = prompt(5, "video", 6) if inputs else prompt(6)
            with pytest.raises(InputError, match=words) as error:
                model.generate(ids, **inputs, **OPTIONS, **mode)
            assert "\n" not in str(error.value)
    assert not ran
    config = copy.deepcopy(model.generation_config)
    if "prefill_chunk_size" in mode:
        config.prefill_chunk_size = 64
        with pytest.raises(InputError, match="prefill_chunk_size = 64"):
            model.generate(prompt(6), generation_config=config)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_our_runtime_serves(compressed: bool, model) -> None:
    """Prompt lookup gives the tokens of plain decoding; guidance away from a prompt changes them."""
    inputs = {"images": [video(FRAMES, cuts=(2,))], "modalities": ["video"]}
    ids = torch.cat([prompt(5, "video"), REPEATED], dim=1)
    if compressed:
        holitom(model, retain_ratio=0.2, merge_layer=4)
    want = model.generate(ids, **inputs, **OPTIONS)
    if Version(transformers.__version__) >= Version("5.18"):  # what is before is refused, see below
        assert torch.equal(model.generate(ids, **inputs, **OPTIONS, prompt_lookup_num_tokens=3), want)
    guided = model.generate(ids, **inputs, **OPTIONS, guidance_scale=3.0, negative_prompt_ids=prompt(4))
    assert guided.shape == want.shape
    assert not torch.equal(guided, want)


def test_prompt_lookup_that_forgets_the_prompt_is_refused(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", "5.17.0")
    with pytest.raises(InputError, match=r"prompt_lookup_num_tokens = 3 gives other tokens with transformers 5\.17\.0"):
        model.generate(prompt(6), **OPTIONS, prompt_lookup_num_tokens=3)


def test_caches_of_fixed_size_are_called_by_their_name(hugging) -> None:
    """Under the outer stage alone there is no word of an inner stage, nor of the mask that transformers made."""
    ids, inputs = their_inputs()
    with from_mapping(available_methods()["uniform"], {}).build().applied(hugging):
        for more in (
            {"cache_implementation": "static"},
            {"past_key_values": StaticCache(hugging.config.text_config, max_cache_len=2000)},
        ):
            with pytest.raises(
                NotImplementedError, match=r"^compression needs a DynamicCache .* not StaticCache"
            ) as error:
                new_tokens(hugging, ids, inputs, **more)
            assert "4D" not in str(error.value)
