"""The table of cosine similarities in float64 against NumPy, in one pass and by channels."""

import numpy as np
import pytest
import torch

from holitom.ops import exact_similarity
from holitom.ops.exact_similarity import cosine_table


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels", [4, 10, 1792])
def test_the_table_equals_numpy(dtype: torch.dtype, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_similarity, "CHANNELS", channels)
    draw = torch.Generator().manual_seed(0)
    first, second = (100 + torch.randn(3, count, 10, generator=draw) for count in (5, 7))
    first, second = first.to(dtype), second.to(dtype)
    first[1, 2], second[2, 0], second[0, 3] = 0, 0, first[0, 4]
    found = cosine_table(first, second)
    assert found.dtype == torch.float64
    assert found[0, 4, 3] == pytest.approx(1, abs=1e-15)
    for frame in range(3):
        one, other = first[frame].double().numpy(), second[frame].double().numpy()
        lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
        want = np.divide(one @ other.T, lengths, out=np.zeros((5, 7)), where=lengths > 0)
        np.testing.assert_allclose(found[frame].numpy(), want, atol=1e-14)


def test_no_frames_and_values_that_are_not_finite() -> None:
    assert cosine_table(torch.empty(0, 4, 3), torch.empty(0, 5, 3)).shape == (0, 4, 5)
    broken = torch.ones(1, 2, 3)
    broken[0, 1, 1] = torch.nan
    assert cosine_table(broken, torch.ones(1, 2, 3)).isnan().tolist() == [[[False, False], [True, True]]]
