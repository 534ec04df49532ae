"""The only code that touches a model: reversible forward pre-hooks, removed by handle, never an edited class."""

from holitom.hooks.inner import InnerMerging
from holitom.hooks.inner_record import InnerRecord
from holitom.hooks.received_attention import ReceivedAttentionRecorder

__all__ = ["InnerMerging", "InnerRecord", "ReceivedAttentionRecorder"]
