"""Uniform selection: counts of the main table, equal steps, nothing changed."""

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holitom.encoded_video import EncodedVideo
from holitom.methods.uniform import UniformConfig
from holitom.tokens import TokenKind
from llava.errors import InputError
from tests.references.uniform import positions


def compress(features: torch.Tensor, **fields):
    outer = UniformConfig(**fields).build().outer
    kept = outer(EncodedVideo(features))
    assert len(kept.index) == outer.most_kept(*features.shape[:2]), "the bound is exact"
    return kept


@pytest.mark.parametrize(("ratio", "count"), [(0.25, 1568), (0.2, 1280), (0.15, 960), (0.1, 640), (1.0, 6272)])
def test_counts_at_32_frames(ratio: float, count: int) -> None:
    assert len(compress(torch.zeros(32, 196, 2), retain_ratio=ratio).index) == count


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(1, 4), st.integers(1, 40), st.floats(0.001, 1))
def test_equals_the_walk(frames: int, tokens: int, ratio: float) -> None:
    features = torch.randn(frames, tokens, 3, generator=torch.Generator().manual_seed(0)).half()
    kept = compress(features, retain_ratio=ratio)
    want = [(frame, position) for frame in range(frames) for position in positions(tokens, ratio)]
    assert kept.index.tolist() == [frame * tokens + position for frame, position in want]
    assert torch.equal(kept.features, torch.stack([features[place] for place in want]))
    assert kept.features.dtype == torch.float16
    rows = {place: row for row, place in enumerate(want)}
    for frame in range(frames):
        for position in range(tokens):
            row = rows.get((frame, position), -1)
            assert kept.details.source_map()[frame, position] == row
            kind = TokenKind.DYNAMIC_DROPPED if row < 0 else TokenKind.DYNAMIC_KEPT
            assert kept.details.token_kinds()[frame, position] == kind
    assert kept.details.segments == [(0, frames - 1)]


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan"), True, "half", None])
def test_ratios_out_of_range(ratio: object) -> None:
    with pytest.raises(InputError) as error:
        UniformConfig(ratio)
    assert repr(ratio) in str(error.value)
    assert "must be in (0, 1]" in str(error.value)


def test_the_readme_shows_this_method() -> None:
    """The example is the file without imports and docstrings."""
    root = Path(__file__).parents[3]
    readme = (root / "README.md").read_text()
    example = readme.split("## Add a method")[1].split("```python\n")[1].split("```")[0]
    source = ast.parse((root / "holitom/methods/uniform.py").read_text())
    classes = [node for node in source.body if isinstance(node, ast.ClassDef)]
    for node in ast.walk(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    assert ast.dump(ast.parse(example)) == ast.dump(ast.Module(body=classes, type_ignores=[]))
