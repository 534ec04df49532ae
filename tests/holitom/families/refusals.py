"""What families refuse alike: settings that differ from the published ones, and signals that their tower has not."""

from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn

from holitom.compressor import Compressor
from holitom.methods.fastvid import FastVidConfig
from llava.errors import InputError


def refuses(model: nn.Module, compressor: Compressor, settings: Mapping[str, Any], head: str) -> None:
    """``settings`` of its configuration, one at a time, and a pooling head, in words that hold ``head``."""
    for name, value in settings.items():
        published = getattr(model.config, name)
        setattr(model.config, name, value)
        with pytest.raises(InputError, match="as published"):
            compressor.apply(model)
        setattr(model.config, name, published)
    outer = FastVidConfig(min_segments=2).build().outer
    outer.signals = ("tower_output",)  # what head_weights ask for
    with pytest.raises(InputError, match=head):
        Compressor(outer, None).apply(model)
