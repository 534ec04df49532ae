"""Inner merging in the recorded tiny checkpoint gives what the authors' release gave, with and without its artefact."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config

from holitom.methods.holitom.inner import merging_stage
from tests.references.inner_checks import SpanQwen2, settings

RECORDED = Path(__file__).parents[3] / "goldens" / "e2e"
VIDEO_AT, TEXT_AFTER = 14, 17  # the prompt has 32 tokens with the video's placeholder at 14


@pytest.fixture(scope="module")
def model():
    published = json.loads((RECORDED / "checkpoint" / "config.json").read_text())
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    names += ["num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"]
    rope = {"rope_type": "default", "rope_theta": published["rope_theta"]}
    model = SpanQwen2(Qwen2Config(**{name: published[name] for name in names}, rope_parameters=rope))
    weights = {}
    for path in (RECORDED / "checkpoint").glob("*.safetensors"):
        weights |= load_file(path)
    model.load_state_dict({name: weights[name].float() for name in model.state_dict()})
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("causal", "suffix"), [(False, ""), (True, "_causalfix")])
@pytest.mark.parametrize("outer", ["r25_t80", "r10_t65"])
@pytest.mark.parametrize("frames", [8, 16])
def test_equals_the_release(model, frames, outer, causal, suffix, attention):
    embeds = load_file(RECORDED / f"out_frames{frames}_outer_{outer}.safetensors")["inputs_embeds"][None]
    recorded = load_file(RECORDED / f"out_frames{frames}_full_{outer}_k4_r50{suffix}.safetensors")
    model.set_attn_implementation(attention)
    states = []
    layer_input = model.model.layers[4].input_layernorm.register_forward_pre_hook(
        lambda _, args: states.append(args[0])
    )
    with merging_stage(settings(4, 0.5, causal=causal)).applied(model.model) as merging:
        out = model.generate(
            inputs_embeds=embeds,
            video_spans=torch.tensor([[[VIDEO_AT, embeds.shape[1] - TEXT_AFTER]]]),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    layer_input.remove()
    assert torch.equal(merging.last.cpu_kept[0], recorded["keep_indices"].long())
    assert torch.allclose(merging.last.scores[0], recorded["attn_row_layer_Km1"].flatten(), atol=1e-6)
    if not causal:
        assert torch.allclose(states[0].flatten(), recorded["hidden_in_layer_K"].flatten(), atol=1e-4)
    assert torch.allclose(torch.cat(out.logits), recorded["step_logits"], atol=1e-4)
    assert out.sequences[0].tolist() == recorded["tokens"].tolist()
