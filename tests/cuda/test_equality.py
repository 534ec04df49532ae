"""The same model and clip on a GPU as on the CPU in float32: kept tokens and logits; and what a GPU must not do."""

from contextlib import nullcontext
from functools import cache, partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.efficiency.latency.clips import draw_clip
from eval.efficiency.latency.run import Prompt, make_prompt, random_ids, run_once
from eval.instruments.device_counts import syncs_on_cuda
from eval.instruments.measure import peak_memory
from eval.instruments.models.geometries import random_model
from holitom import Compressor, InnerConfig, OuterConfig
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.outer import OuterCompression
from llava.model.builder import DTYPES
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

FRAMES = 16
HALF = ("bfloat16", "float16")
OUTER = OuterConfig(retain_ratio=0.15, similarity_threshold=0.8)
# how far logits (spread about 1) may lie from float32's; selections may differ at near ties in half precision
LOGIT_BOUNDS = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
LEAST_SHARED = {"float32": 1.0, "bfloat16": 0.9, "float16": 0.97}


def holitom() -> Compressor:
    return HolitomConfig(OUTER, InnerConfig(merge_layer=5)).build()


@cache
def model_on(place: str, dtype: str) -> LlavaQwenForCausalLM:
    """The tiny geometry, the same weights everywhere."""
    model = random_model("tiny", place, DTYPES[dtype])
    if (place, dtype) != ("cpu", "float32"):
        model.load_state_dict(model_on("cpu", "float32").state_dict())
    return model


def prompt_for(model: LlavaQwenForCausalLM, frames: int = FRAMES) -> Prompt:
    clip = draw_clip(frames, 0.5)
    pixels = model.get_vision_tower().image_processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
    return make_prompt(model, random_ids(model.config.vocab_size), pixels.to(model.device, model.dtype))


@torch.no_grad()
def logits_of(model: LlavaQwenForCausalLM, prompt: Prompt, compressor: Compressor | None) -> Tensor:
    """(vocabulary,) float32 on the CPU: the first new token's."""

    def run() -> Tensor:
        return model(prompt.ids, images=[prompt.pixels], modalities=["video"], logits_to_keep=1).logits[0, -1]

    if compressor is None:
        return run().float().cpu()
    with compressor.applied(model):
        return run().float().cpu()


@cache
def expected() -> tuple[Tensor, Tensor, Tensor]:
    """Logits without and with HoliTom, and its kept tokens, on the CPU in float32."""
    model, compressor = model_on("cpu", "float32"), holitom()
    prompt = prompt_for(model)
    return logits_of(model, prompt, None), logits_of(model, prompt, compressor), compressor.record.videos[0].index


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_whole_run_keeps_the_same_tokens_and_logits(device: torch.device, dtype: str) -> None:
    model, compressor = model_on(device.type, dtype), holitom()
    prompt = prompt_for(model)
    plain, compressed, index = expected()
    assert (logits_of(model, prompt, None) - plain).abs().max() < LOGIT_BOUNDS[dtype]
    found = logits_of(model, prompt, compressor)
    kept = compressor.record.videos[0].index.cpu()
    assert len(kept) == len(index)
    shared = len(set(kept.tolist()) & set(index.tolist())) / len(index)
    assert shared >= LEAST_SHARED[dtype]
    assert (found - compressed).abs().max() < LOGIT_BOUNDS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_the_outer_stage_selects_what_float32_selects_from_the_same_values(
    device: torch.device, dtype: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, tokens, dim = 13, 49, 96
    still = torch.rand(tokens, 1, generator=generator) < 0.5
    scene = torch.randn(tokens, dim, generator=generator)
    fresh = torch.randn(frames, tokens, dim, generator=generator)
    features = torch.where(still, scene + 0.1 * fresh, fresh).to(DTYPES[dtype])
    attention = torch.rand(frames, tokens, generator=generator)
    wanted = OuterCompression(OUTER)(features.float(), attention)
    found = OuterCompression(OUTER)(features.to(device), attention.to(device))
    assert torch.equal(found.index.cpu(), wanted.index)
    assert torch.equal(found.details.source_map().cpu(), wanted.details.source_map())
    bound = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    assert torch.allclose(found.features.float().cpu(), wanted.features, rtol=bound, atol=bound)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", HALF)
def test_prefill_runs_on_flash_attention_alone(gpu: torch.device, dtype: str, compressed: bool) -> None:
    # a mask, or a layout that no flash kernel takes, would raise here instead of falling back silently
    model = model_on("cuda", dtype)
    prompt = prompt_for(model)
    usual = logits_of(model, prompt, holitom() if compressed else None)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        flash = logits_of(model, prompt, holitom() if compressed else None)
    assert (flash - usual).abs().max() < LOGIT_BOUNDS[dtype]


def test_syncs_are_seen(gpu: torch.device) -> None:
    value = torch.ones(1, device=gpu)
    assert syncs_on_cuda(value.item) == 1
    assert syncs_on_cuda(lambda: value + 1) == 0


def test_the_outer_stage_waits_for_the_device_once(gpu: torch.device) -> None:
    features = torch.randn(FRAMES, 196, 256, device=gpu, dtype=torch.bfloat16)
    attention = torch.rand(FRAMES, 196, device=gpu)
    OuterCompression(OUTER)(features, attention)
    assert syncs_on_cuda(lambda: OuterCompression(OUTER)(features, attention)) <= 1


def test_a_compressed_prefill_waits_at_most_once_more(gpu: torch.device) -> None:
    model = model_on("cuda", "bfloat16")
    prompt = prompt_for(model)
    waits = {}
    for name, compressor in (("vanilla", None), ("holitom", holitom())):
        answer_of(model, prompt, compressor, "eager", tokens=1)
        waits[name] = syncs_on_cuda(partial(answer_of, model, prompt, compressor, "eager", tokens=1))
    assert waits["holitom"] <= waits["vanilla"] + 1, waits


def answer_of(
    model: LlavaQwenForCausalLM, prompt: Prompt, compressor: Compressor | None, decoding: str, tokens: int = 24
) -> Tensor:
    """(1, tokens) greedy."""
    with nullcontext() if compressor is None else compressor.applied(model):
        return model.generate(
            prompt.ids, images=[prompt.pixels], modalities=["video"], decoding=decoding, max_new_tokens=tokens,
            eos_token_id=None, do_sample=False, pad_token_id=0,
        )  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("decoding", ["preallocated", "static", "graphs"])
def test_every_way_of_decoding_gives_the_eager_loop_s_tokens(
    device: torch.device, decoding: str, compressed: bool
) -> None:
    if decoding == "graphs" and device.type == "cpu":
        pytest.skip("CUDA graphs need a CUDA device: bash scripts/gpu_check.sh equality")
    model, compressor = model_on(device.type, "float32"), holitom() if compressed else None
    prompts = [prompt_for(model, frames) for frames in (FRAMES, FRAMES - 1)]
    for prompt in [*prompts, prompts[0]]:  # the last one finds tensors and graphs of another
        wanted = answer_of(model, prompt, compressor, "eager")
        assert torch.equal(answer_of(model, prompt, compressor, decoding), wanted)


@pytest.mark.parametrize("dtype", HALF)
def test_a_captured_step_computes_what_the_step_does_and_waits_for_nothing(gpu: torch.device, dtype: str) -> None:
    model = model_on("cuda", dtype)
    answer_of(model, prompt_for(model), holitom(), "static")
    decoder = model.idle_decoder._decoders[-1]
    logits = []
    for graph in (False, True):
        decoder.used = 0
        decoder.step_number.zero_()
        for group in decoder.groups:
            group.slot.fill_(group.prompt)
            group.bias[:, group.prompt :] = -torch.inf
        decoder.put(torch.zeros(1, dtype=torch.long, device=gpu))
        decoder.step(greedy=False, graph=graph)  # the first one captures
        assert syncs_on_cuda(partial(decoder.step, greedy=False, graph=graph)) == 0
        logits.append(decoder.logits.clone())
    assert torch.allclose(*logits, atol=0.02)
    decoder.step(graph=True)
    assert syncs_on_cuda(partial(decoder.step, graph=True)) == 0


def test_compression_lowers_the_peak_memory(gpu: torch.device) -> None:
    model = random_model("llava-onevision-0.5b", gpu, torch.bfloat16)
    prompt = prompt_for(model, frames=64)
    peaks = []
    for compressor in (None, HolitomConfig(OUTER, InnerConfig(merge_layer=15)).build()):
        logits_of(model, prompt, compressor)
        with peak_memory() as peak:
            logits_of(model, prompt, compressor)
        peaks.append(peak.bytes)
    assert peaks[1] < peaks[0]


def test_random_weights_are_made_on_the_device(gpu: torch.device) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with peak_memory() as peak:
        model = random_model("llava-onevision-0.5b", gpu, torch.bfloat16)
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert peak.bytes - before < 1.1 * size  # no second copy, nothing in float32


@pytest.mark.parametrize("compressed", [False, True])
def test_the_stages_of_a_run_add_up(device: torch.device, compressed: bool) -> None:
    model = model_on(device.type, "float32")
    prompt = prompt_for(model)
    compressor = holitom() if compressed else None
    run_once(model, prompt, compressor, 3)
    timing = run_once(model, prompt, compressor, 3)
    total = sum(ms for name, ms in timing.stages_ms.items() if name != "inner")
    assert (
        ("outer" in timing.stages_ms) == ("signals" in timing.stages_ms) == ("inner" in timing.stages_ms) == compressed
    )
    assert 0.2 * timing.first_token_ms < total < 1.05 * timing.first_token_ms
