"""Whole runs of the release on a random checkpoint: embeddings, logits, greedy tokens, inner decisions."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from eval.claims.parity.cases import largest
from holitom.compressor import Compressor
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from llava.model.builder import load_pretrained_model

_NAME = re.compile(r"out_frames(\d+)_(vanilla|outer|full)(?:_r(\d+)_t(\d+))?(?:_k(\d+)_r(\d+))?(_causalfix)?")


def method_of(stem: str) -> tuple[int, HolitomConfig | None]:
    """Number of frames and settings from the name of a recorded run.

    Raises:
        ValueError: if the name does not follow the pattern.
    """
    match = _NAME.fullmatch(stem)
    if not match:
        raise ValueError(f"{stem} is not named like a recorded run")
    frames, stage, retain, threshold, layer, ratio, causal = match.groups()
    if stage == "vanilla":
        return int(frames), None
    outer = OuterConfig(retain_ratio=int(retain) / 100, similarity_threshold=int(threshold) / 100)
    if stage == "outer":
        return int(frames), HolitomConfig(outer, None)
    inner = InnerConfig(merge_layer=int(layer), merge_ratio=int(ratio) / 100, causal=causal is not None)
    return int(frames), HolitomConfig(outer, inner)


def read_pixels(path: Path) -> Tensor:
    """Recorded pixel values (frames, 3, side, side) in float16: as tensors, or as a picture of frames above each other.

    The picture takes a tenth of the space and gives the same float16 values, bit for bit.
    """
    if path.suffix != ".png":
        return load_file(path)["pixel_values"]
    strip = torch.from_numpy(np.array(Image.open(path)))
    frames = strip.view(-1, strip.shape[1], strip.shape[1], 3).permute(0, 3, 1, 2)
    return ((frames.float() / 255 - 0.5) / 0.5).half()


class EndToEnd:
    """The runs of one ``e2e`` folder; checkpoint and inputs are loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = load_pretrained_model(folder / "checkpoint", None, "llava_qwen", torch_dtype="float32")[1]
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}

    def inputs(self, frames: int) -> tuple[Tensor, Tensor]:
        """Pixel values (frames, 3, side, side) in float32 and input ids (1, text)."""
        if frames not in self._inputs:
            facts = json.loads((self.folder / f"inputs_frames{frames}.json").read_text())
            own = load_file(self.folder / f"inputs_frames{frames}.safetensors")
            pixels = read_pixels(self.folder / facts["pixel_file"])[:: facts["pixel_stride"]]
            self._inputs[frames] = pixels.float(), own["input_ids"]
        return self._inputs[frames]

    def check(self, path: Path) -> tuple[float, list[str]]:
        """Largest absolute error of one run, and what differs in its selections."""
        want = load_file(path)
        frames, config = method_of(path.stem)
        if config is None:
            return self._compare(frames, want, None, None)
        compressor = config.build()
        with compressor.applied(self.model):
            return self._compare(frames, want, config, compressor)

    @torch.no_grad()
    def _compare(
        self, frames: int, want: dict[str, Tensor], config: HolitomConfig | None, compressor: Compressor | None
    ) -> tuple[float, list[str]]:
        pixels, ids = self.inputs(frames)
        run: dict[str, Any] = {"images": [pixels], "modalities": ["video"]}
        errors, differences = [0.0], []
        if "inputs_embeds" in want:
            spliced = self.model.splice_visuals(ids, None, None, [pixels], None, ["video"])
            errors.append(largest(spliced.inputs_embeds[0], want["inputs_embeds"]))
        steps = want["tokens"].shape[0]
        entered: list[Tensor] = []  # states that enter layer K, after the merge: the hook runs behind the compressor's
        layer = config.inner.merge_layer if config is not None and config.inner is not None else 0
        watch = self.model.get_model().layers[layer].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        out = self.model.generate(
            ids,
            **run,
            max_new_tokens=steps,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        watch.remove()
        if "hidden_in_layer_K" in want:
            errors.append(largest(entered[0][0], want["hidden_in_layer_K"]))
        logits = torch.stack(out.logits)[:, 0]
        errors += [largest(logits[0], want["first_logits"]), largest(logits, want["step_logits"])]
        if out.sequences[0].tolist() != want["tokens"].tolist():
            differences.append(f"greedy tokens {out.sequences[0].tolist()} instead of {want['tokens'].tolist()}")
        inner = compressor.record.inner if compressor is not None else None
        if "keep_indices" in want and inner is not None:
            if inner.kept[0].tolist() != want["keep_indices"].tolist():
                differences.append("kept positions differ")
            assert inner.scores is not None
            errors.append(largest(inner.scores[0], want["attn_row_layer_Km1"].flatten()))
        return max(errors), differences
