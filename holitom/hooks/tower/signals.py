"""Side signals of the vision tower that a method may ask for by name, each with its recorder."""

from collections.abc import Callable

from holitom.hooks.tower.key_metric import KeyMetricRecorder
from holitom.hooks.tower.parts import Recorder
from holitom.hooks.tower.received_attention import ReceivedAttentionRecorder
from holitom.hooks.tower.tower_output import TowerOutputRecorder

# Name of a signal: its recorder for SigLIP towers; a family's ``recorder(model, name)`` puts one on a module.
RECORDERS: dict[str, Callable[[], Recorder]] = {
    "received_attention": ReceivedAttentionRecorder,
    "tower_output": TowerOutputRecorder,
    "key_metric": KeyMetricRecorder,
}
