"""Answers of one model to prompts of several configurations in every way of decoding: their times and their bytes."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eval.efficiency.outer import synthetic_video
from eval.instruments.measure import after_prefill, interleaved, spread
from eval.instruments.models.geometries import random_model
from eval.synthetic.answers.evaluate import Encoded, SharedVideo
from holitom import load_config
from holitom.compressor import Compressor
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.builder import DTYPES
from llava.model.call_names import cache_of
from llava.model.decode_loop import DECODINGS
from llava.model.static_decoding import IdleDecoder
from llava.model.visual_inputs import VisualEncoder

VANILLA = "vanilla"
TEXT = 20  # tokens before and behind the video
_COPIES = ("aten.cat", "aten.clone", "aten.copy_", "aten._to_copy", "aten.repeat", "aten.index_copy_", "aten.copy")


class StepCounter(TorchDispatchMode):
    """Operations of a block, views left out, and the bytes that some of them only move from one place to another."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.copied_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operators += 1
        if str(func.overloadpacket) in _COPIES:
            moved = args[3] if str(func.overloadpacket) == "aten.index_copy_" else out
            self.copied_bytes += sum(2 * leaf.nbytes for leaf in tree_leaves(moved) if isinstance(leaf, Tensor))
        return out


@dataclass(frozen=True)
class DecodeSettings:
    """What to measure.

    Attributes:
        geometry: a key of ``eval.instruments.models.geometries.GEOMETRIES``.
        configs: YAML files beside the uncompressed prompt.
        frames: of the video.
        new_tokens: of each answer, at least 2.
        repetitions: answers per number.
        threads: of the CPU.
        dtype: a key of ``DTYPES``.
        device: ``cpu`` or ``cuda``.
        attention: attention implementation of transformers' loops; ``eager`` repeats the keys of grouped heads.
    """

    geometry: str
    configs: list[Path]
    frames: int
    new_tokens: int
    repetitions: int
    threads: int
    dtype: str
    device: str
    attention: str


@dataclass
class DecodeCase:
    """One configuration: its prompt is spliced once, its hooks go on for every run."""

    name: str
    compressor: Compressor | None
    prompt: dict[str, Any]
    decoder: IdleDecoder = field(default_factory=IdleDecoder)  # one for all would be made anew at every turn


class DecodeBenchmark:
    """One model and its cases.

    Args:
        settings: what to measure.
    """

    def __init__(self, settings: DecodeSettings) -> None:
        self.settings = settings
        self.model = random_model(
            settings.geometry, settings.device, DTYPES[settings.dtype], attention=settings.attention
        )
        loaded = [load_config(path) for path in settings.configs]
        names = [path.stem for path in settings.configs]
        compressors = [None, *(config.build() for config in loaded)]
        with torch.inference_mode():
            video = self._video()
            pairs = zip([VANILLA, *names], compressors, strict=True)
            self.cases = [DecodeCase(name, each, self._prompt(each, video)) for name, each in pairs]
        self.first_answers: dict[tuple[str, str], float] = {}
        self.ways = [way for way in DECODINGS if way != "graphs" or settings.device == "cuda"]

    def _video(self) -> Encoded:
        """Features of a drawn video and random side signals of the tower."""
        model, frames = self.model, self.settings.frames
        tower = model.get_vision_tower().config
        tokens = VisualEncoder(model.get_model(), model.config, None).tokens_per_frame
        patches = (tower.image_size // tower.patch_size) ** 2
        features, _ = synthetic_video(frames, tokens, model.config.hidden_size, model.dtype, moving=0.45)
        torch.manual_seed(0)
        head_dim = tower.hidden_size // tower.num_attention_heads
        signals = {
            "received_attention": torch.rand(frames, patches),
            "key_metric": torch.randn(frames, patches, head_dim),
            "tower_output": torch.randn(frames, patches, tower.hidden_size, dtype=model.dtype),
        }
        pixels = torch.zeros(frames, 3, tower.image_size, tower.image_size)
        on_device = {name: signal.to(model.device) for name, signal in signals.items()}
        return Encoded(pixels, features.to(model.device), on_device)

    def _prompt(self, compressor: Compressor | None, video: Encoded) -> dict[str, Any]:
        """Arguments of ``generate`` for a prompt whose video has been through the outer stage."""
        model = self.model
        generator = torch.Generator().manual_seed(1)
        text = torch.randint(0, model.config.vocab_size, (2 * TEXT,), generator=generator)
        ids = torch.cat([text[:TEXT], torch.tensor([IMAGE_TOKEN_INDEX]), text[TEXT:]])[None]
        with nullcontext() if compressor is None else compressor.applied(model):
            before, model.visual_compressor = model.visual_compressor, SharedVideo(compressor, video)
            try:
                spliced = model.splice_visuals(ids, None, None, [video.pixels], None, "video")
            finally:
                model.visual_compressor = before
        names = ("inputs_embeds", "attention_mask", "position_ids", "video_spans")
        return {name: getattr(spliced, name) for name in names}

    def answer(self, case: DecodeCase, way: str, tokens: int) -> tuple[float, Tensor]:
        """Seconds from the end of the prefill to the end of ``tokens`` new tokens, and the tokens."""
        model = self.model
        model.idle_decoder = case.decoder
        generate = partial(model.generate, decoding=way, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        with torch.inference_mode(), nullcontext() if case.compressor is None else case.compressor.applied(model):
            return after_prefill(model, lambda: generate(eos_token_id=None, **case.prompt))

    def seconds_per_token(self, case: DecodeCase, way: str) -> float:
        """Of one answer; the first one of all, in which tensors and graphs are made, is noted apart."""
        tokens = self.settings.new_tokens
        seconds = self.answer(case, way, tokens)[0]
        self.first_answers.setdefault((case.name, way), seconds)
        return seconds / (tokens - 1)

    def step_counts(self, case: DecodeCase, way: str) -> dict[str, int]:
        """Operations and copied bytes of the last of three steps: an answer of four tokens less one of three."""
        counts = []
        for tokens in (3, 4):
            with StepCounter() as counter:
                self.answer(case, "static" if way == "graphs" else way, tokens)
            counts.append(counter)
        return {
            "operators": counts[1].operators - counts[0].operators,
            "copied_bytes": counts[1].copied_bytes - counts[0].copied_bytes,
        }

    def cache_lengths(self, case: DecodeCase) -> list[int]:
        """Entries per layer after the prefill."""
        model = self.model
        with torch.inference_mode(), nullcontext() if case.compressor is None else case.compressor.applied(model):
            cache = cache_of(model(**case.prompt, use_cache=True, logits_to_keep=1))
        return [layer.keys.shape[2] for layer in cache.layers]

    def bytes_per_step(self, lengths: list[int]) -> dict[str, Any]:
        """What a step in the middle of the answer must read: the weights of layers and head, and the cache."""
        model, config = self.model, self.model.config
        decoder = model.get_model()
        parts = (decoder.layers, decoder.norm, model.lm_head)
        weights = sum(parameter.nbytes for part in parts for parameter in part.parameters())
        head_dim = config.hidden_size // config.num_attention_heads
        entry = 2 * config.num_key_value_heads * head_dim * model.dtype.itemsize
        cache = entry * sum(length + self.settings.new_tokens // 2 for length in lengths)
        return {"weights": weights, "kv_cache": cache, "kv_share": round(cache / (weights + cache), 4)}

    def rows(self) -> list[dict[str, Any]]:
        """One row per case."""
        runs: dict[tuple[str, str], Callable[[], float]] = {
            (case.name, way): partial(self.seconds_per_token, case, way) for case in self.cases for way in self.ways
        }
        seconds = interleaved(runs, self.settings.repetitions)
        rows = []
        for case in self.cases:
            lengths = self.cache_lengths(case)
            ways: dict[str, Any] = dict.fromkeys(DECODINGS)
            for way in self.ways:
                time_ms = spread([1e3 * value for value in seconds[case.name, way]])
                per_second = round(1e3 / time_ms["median"], 2)
                first = {"first_answer_ms": round(1e3 * self.first_answers[case.name, way], 3)}
                ways[way] = {"ms_per_token": time_ms, "tokens_per_second": per_second, **first}
                ways[way] |= self.step_counts(case, way)
            rows.append(
                {
                    "config": case.name,
                    "tokens": {"prompt": lengths[0], "last_layer": lengths[-1]},
                    "bytes_per_step": self.bytes_per_step(lengths),
                    "decode": ways,
                }
            )
        return [{**row, **_ratios(row, rows[0])} for row in rows]


def _ratios(row: dict[str, Any], vanilla: dict[str, Any]) -> dict[str, Any]:
    """How many times faster each way is than this row's eager loop, and than vanilla in the same way."""

    def median(other: dict[str, Any], way: str) -> float | None:
        measured = other["decode"][way]
        return None if measured is None else measured["ms_per_token"]["median"]

    against_eager, against_vanilla = {}, {}
    for way in DECODINGS:
        own, eager, plain = median(row, way), median(row, "eager"), median(vanilla, way)
        against_eager[way] = None if own is None or eager is None else round(eager / own, 3)
        against_vanilla[way] = None if own is None or plain is None else round(plain / own, 3)
    return {"against_eager": against_eager, "against_vanilla": against_vanilla}
