"""What patches receive in towers that pack their frames, against the whole map of the tower's queries and keys."""

import pytest
import torch
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import VisionAttention

from holitom.hooks.tower import packed_attention
from holitom.hooks.tower.packed_attention import packed_recorder

LENGTHS = (12, 12, 7)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_products_are_those_of_the_tower_in_its_own_dtype(dtype: torch.dtype, monkeypatch) -> None:
    torch.manual_seed(1)
    attention = VisionAttention(Qwen2VLVisionConfig(embed_dim=32, hidden_size=32, num_heads=4)).to(dtype)
    attention.config._attn_implementation = "sdpa"
    hidden, angles = 3 * torch.randn(31, 32).to(dtype), torch.rand(31, 4).repeat(1, 2) * 6
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    given = {"cu_seqlens": ends, "position_embeddings": (angles.cos(), angles.sin())}
    segment, dtypes = packed_attention.received_by_segment, set()
    monkeypatch.setattr(
        packed_attention,
        "received_by_segment",
        lambda query, key, *more: dtypes.update((query.dtype, key.dtype)) or segment(query, key, *more),
    )
    recorder = packed_recorder(attention, "received_attention")
    with recorder.recording():
        attention(hidden, **given)
        found = recorder.take()

    heads = attention.qkv(hidden).view(31, 3, 4, 8)[:, :2].float()
    turned = torch.cat([-heads[..., 4:], heads[..., :4]], dim=-1)
    heads = (heads * angles.cos()[:, None, None] + turned * angles.sin()[:, None, None]).to(dtype).double()
    wanted = []
    for frame in heads.split(list(LENGTHS)):
        query, key = frame.unbind(1)
        wanted.append((torch.einsum("ihd,jhd->hij", query, key) * 8**-0.5).softmax(-1).mean((0, 1)))
    torch.testing.assert_close(found.double(), torch.cat(wanted), atol=1e-6, rtol=1e-5)
    assert found.dtype == torch.float32
    assert dtypes == {dtype}
