"""The only code that touches a model: reversible forward pre-hooks, removed by handle, never an edited class."""

from holitom.hooks.decoder.inner_record import InnerRecord
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from holitom.methods.holitom.inner import InnerMerging

__all__ = ["InnerMerging", "InnerRecord", "ReceivedAttentionRecorder"]
