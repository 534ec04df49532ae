"""Reading the keys of one layer of the vision tower, by which VisionZip tells which patches are alike."""

from typing import Any

from torch import Tensor

from holitom.hooks.tower.recorder import AttentionRecorder, normed_projection


class KeyMetricRecorder(AttentionRecorder):
    """Records every patch's key, averaged over the heads (VisionZip, Sec. 3.2): (images, patches, head_dim) fp32.

    The keys are computed a second time from the module's input, so that other recorders may call the projection too.
    """

    signal = "key metric"
    needs = ("k_proj", "num_heads")

    def _read(self, attention: Any, hidden: Tensor) -> Tensor:
        return normed_projection(attention, "k", hidden).unflatten(-1, (attention.num_heads, -1)).float().mean(dim=-2)
