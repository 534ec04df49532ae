"""Large frames go through the similarity one by one in two buffers that take turns: the same numbers as in blocks."""

import pytest
import torch

from holitom.ops.similarity import products_by_block, products_in_cache, similarity_and_norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_by_frame_equals_float64(frames, dtype):
    features = torch.randn(frames, 40, 3584, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = features.double()
    products, lengths = products_in_cache(features)
    torch.testing.assert_close(products.double(), (wide[:-1] * wide[1:]).sum(-1), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(lengths.double(), wide.norm(dim=-1), atol=0, rtol=1e-5)
    for mine, other in zip((products, lengths), products_by_block(features, 2), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-5)
    found = similarity_and_norms(features)
    assert torch.equal(found[1], lengths)
