"""What every kind of method answers and keeps on one prompt, however the model is laid out.

As a program it writes that into one JSON file per process: ``python -m tests.holitom.sharded_runs CHECKPOINT
two-devices FOLDER`` and, under torchrun, ``tensor-parallel``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from holitom.methods import available_methods
from holitom.settings import from_mapping
from llava.model.builder import load_pretrained_model
from tests.tiny_models import greedily, prompt, video

STEPS = 4
# One of each kind: an outer and an inner stage; every inner stage there is; kept positions; signals of the tower.
METHODS: dict[str, dict[str, Any] | None] = {
    "vanilla": None,
    "holitom": {"inner": {"merge_layer": 4}},
    "fastv": {},
    "pdrop": {"drop_layers": [1, 2, 4]},  # layer 2 lies behind the border of two devices
    "prunevid": {"inner": {"layer": 3}},
    "dycoke": {"decode": {"layer": 3, "prune_ratio": 0.5, "similarity_threshold": 1.0}},
    "visionzip": {},
    "fastvid": {"min_segments": 3},
}


def answers(model: Any) -> dict[str, Any]:
    """Per method: greedy tokens of two rows, tokens kept before the LLM, positions kept inside, cache entries asked."""
    rows = [prompt(5, "video", 9, seed=1)[0], prompt(2, "video", 4, seed=2)[0]]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=256, padding_side="left")
    inputs = {"images": [video(4, cuts=(2,)), video(5, seed=3)], "modalities": ["video", "video"]}
    found: dict[str, Any] = {}
    for name, settings in METHODS.items():
        compressor = None if settings is None else from_mapping(available_methods()[name], settings).build()
        if compressor is not None:
            compressor.apply(model)
        out = greedily(model, ids, STEPS, attention_mask=ids.ne(256), **inputs)
        found[name] = {"tokens": out.sequences.tolist()}
        if compressor is None:
            continue
        record, inner = compressor.record, compressor.record.inner
        found[name]["outer"] = [kept.index.tolist() for kept in record.videos]
        found[name]["inner"] = None if inner is None else inner.cpu_kept.tolist()
        found[name]["layers"] = [record.tokens_per_layer(6, number) for number in range(2)]
        attended = getattr(compressor.inner, "attended", None)
        found[name]["attended"] = None if attended is None else attended.tolist()
        compressor.remove()
    return found


def main(folder: str, layout: str, output: str) -> None:
    """Load the checkpoint in one layout and write its answers."""
    file = Path(output) / f"{os.environ.get('RANK', '0')}.json"
    if layout == "tensor-parallel":
        model = load_pretrained_model(folder, torch_dtype="float32", tp_plan="auto")[1]
        shares = {name: list(p.to_local().shape) for name, p in model.named_parameters() if hasattr(p, "to_local")}
        assert shares["model.layers.5.self_attn.q_proj.weight"] == [32, 64], "half of the heads"
        file.write_text(json.dumps(answers(model)))
        return
    from tests.two_devices import Literals, TwoDevices, split_model  # noqa: PLC0415

    model = load_pretrained_model(folder, torch_dtype="float32")[1]
    split_model(model, first_layers=2)
    with TwoDevices(), Literals(), torch.no_grad():
        file.write_text(json.dumps(answers(model)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
