"""torch's dynamic int8 quantisation of the linear layers: answers, with and without compression, in every decoding."""

import copy

import pytest
import torch

from holitom import available_methods
from holitom.settings import from_mapping
from tests.llava.test_against_transformers import expanded
from tests.tiny_models import VIDEO_ID, greedily, hugging_face_model, prompt, video

pytestmark = pytest.mark.filterwarnings("ignore:.*quantization.*")
METHODS = {
    "vidcom2": {},
    "visionzip": {},
    "holitom": {"inner": {"merge_layer": 4}},
    "pdrop": {"drop_layers": [1, 3, 4]},
}


def quantized(model):
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


@pytest.mark.parametrize("decoding", ["eager", "preallocated", "static"])
def test_answers_as_transformers_own_class(model, checkpoint, decoding: str) -> None:
    """The same layers are quantised alike in both, so the logits agree as closely as in float32."""
    theirs = quantized(hugging_face_model(checkpoint))
    pixels, ids = video(3), prompt(5, "video", 6)
    wide = expanded(ids, [3 * 196 + 1], [VIDEO_ID])
    inputs = {"pixel_values_videos": pixels[None], "attention_mask": torch.ones_like(wide)}
    want = greedily(theirs, wide, 3, **inputs)
    got = greedily(quantized(model), ids, 3, images=[pixels], modalities=["video"], decoding=decoding)
    for mine, other in zip(got.logits, want.logits, strict=True):
        torch.testing.assert_close(mine, other[:, : mine.shape[1]], rtol=1e-3, atol=2e-2)
    plain = greedily(copy.deepcopy(model), ids, 1, images=[pixels], modalities=["video"]).logits[0]
    assert not torch.equal(plain, got.logits[0])


@pytest.mark.parametrize("name", METHODS)
def test_compression_on_quantized_layers(model, name: str) -> None:
    """Every method asks the layers as modules, so that it needs no weight of theirs."""
    small = quantized(model)
    compressor = from_mapping(available_methods()[name], METHODS[name]).build()
    with compressor.applied(small):
        found = greedily(small, prompt(5, "video", 6), 2, images=[video(4)], modalities=["video"])
    assert all(logits.isfinite().all() for logits in found.logits)
    assert min(compressor.record.tokens_per_layer(6)) < 4 * 196
