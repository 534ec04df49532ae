"""The outer stage against recordings of the authors' release (see goldens/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eval.claims.parity.cases import outer_config
from holitom.methods.holitom.outer import OuterCompression

GOLDENS = sorted((Path(__file__).parents[3] / "goldens").glob("outer_*.safetensors"))
SIDE = 14


def compress(path):
    recorded, data = json.loads(path.with_suffix(".json").read_text()), load_file(path)
    config = outer_config(recorded)
    order = "raster" if recorded["newline_mode"] == "grid" else "block"
    return OuterCompression(config)(data["X"].float(), data["attn"], order), recorded, data


def with_newlines(tokens, newline):
    """A newline after every grid row that still holds a token."""
    rows = torch.div(tokens.index, SIDE, rounding_mode="floor").tolist()
    vectors = []
    for place, vector in enumerate(tokens.features):
        vectors.append(vector)
        if rows[place] != rows[place + 1 : place + 2][0] if place + 1 < len(rows) else True:
            vectors.append(newline)
    return torch.stack(vectors)


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_recorded_run(path):
    tokens, recorded, data = compress(path)
    details = tokens.details
    assert [list(segment) for segment in details.segments] == recorded["windows"] == data["windows"].tolist()
    assert details.static_counts == data["n_static"].tolist()
    assert details.removable == recorded["total_reduced"]
    assert details.adjusted_ratio == recorded["adjusted_retain_ratio"]
    torch.testing.assert_close(details.similarity, data["feature_sim"].view_as(details.similarity), atol=1e-5, rtol=0)
    features = tokens.features
    if recorded["newline_mode"] == "grid":
        features = with_newlines(tokens, data["image_newline"])
    else:
        sizes = [
            kept + sum(details.dynamic_kept[first : last + 1])
            for kept, (first, last) in zip(details.static_kept, details.segments, strict=True)
        ]
        assert sizes == data["segment_lengths"].tolist()
    torch.testing.assert_close(features, data["merged"], atol=1e-5, rtol=0)


def test_recorded_runs_are_there():
    assert len(GOLDENS) == 22
