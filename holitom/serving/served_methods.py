"""Which rows of the tables can run before an engine that is not ours, and why the others cannot."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holitom.checks import is_integer, require
from holitom.compressor import Compressor
from holitom.errors import InputError
from holitom.settings import RunConfig, load_config, parse_config

Method = RunConfig | Mapping[str, Any] | str | os.PathLike[str] | None
_TEMPLATE = "qwen_1_5"
_INSIDE = ("inner", "decode")  # settings that are null where a method has no stage inside the LLM


@dataclass(frozen=True)
class ServedMethod:
    """A method that works before any engine.

    Attributes:
        key: of its settings: equal keys compress alike.
        num_frames: of the row; None where no row was named.
        compressor: its stages, on no model; None for vanilla.
    """

    key: str
    num_frames: int | None
    compressor: Compressor | None

    @property
    def signals(self) -> frozenset[str]:
        """Side signals of the tower that its outer stage needs."""
        outer = None if self.compressor is None else self.compressor.outer
        return frozenset() if outer is None else frozenset(outer.signals)

    @property
    def has_tower(self) -> bool:
        """Whether it changes what the tower computes, so that its features are its own."""
        return self.compressor is not None and self.compressor.tower is not None


def served_method(method: Method) -> ServedMethod:
    """A method of a request.

    Args:
        method: a YAML file or the name of a shipped one, a configuration, the settings of a method
            (``{"method": "uniform", "retain_ratio": 0.15}``), or None for vanilla.

    Raises:
        InputError: if there is none such, or it acts where vLLM has no place for it.
    """
    named = method is not None and not isinstance(method, Mapping)
    if isinstance(method, RunConfig):
        config = method
    elif method is None or isinstance(method, Mapping):
        config = parse_config({"compressor": method})
    else:
        config = load_config(os.fspath(method))
    what = os.fspath(method) if isinstance(method, str | os.PathLike) else f"method {config.method!r}"
    if named and config.model.conv_template != _TEMPLATE:
        raise InputError(f"{what} has conv_template = {config.model.conv_template!r}: served prompts use {_TEMPLATE!r}")
    compressor = config.build()
    if compressor is not None:
        _refuse(what, config, compressor)
    key = json.dumps(config.as_dict()["compressor"], sort_keys=True)
    return ServedMethod(key, config.model.num_frames if named else None, compressor)


def exact_kept(method: Method, frames: int, tokens_per_frame: int) -> int:
    """Visual tokens that a method leaves of any video of this size, for engines that lay out a prompt without features.

    Newline tokens, one behind the video in LLaVA-OneVision, are not among them. A method needs ``fill_budget``.

    Args:
        method: see :func:`served_method`; of a shipped row ``load_config(row, ["fill_budget=true"])``.
        frames: of the video, at least 1.
        tokens_per_frame: behind the pooling, at least 1: 196 in LLaVA-OneVision.

    Raises:
        InputError: as :func:`served_method`, and where the number depends on what the video shows.
    """
    for name, value in (("frames", frames), ("tokens_per_frame", tokens_per_frame)):
        require(is_integer(value) and value >= 1, name, value, "an integer of at least 1", "give the video's size")
    compressor = served_method(method).compressor
    return (compressor or Compressor(None, None)).exact_kept(frames, tokens_per_frame)


def _refuse(what: str, config: RunConfig, compressor: Compressor) -> None:
    """Refuse what would give other answers on vLLM than here."""
    if compressor.inner is not None:
        switch = next((name for name in _INSIDE if getattr(config.compressor, name, None) is not None), None)
        own = f", or {config.method} with {switch} = null" if switch is not None else ""
        raise InputError(
            f"{what} compresses inside the LLM, whose layers are vLLM's and see one sequence of one length: "
            f"use {working_row(config)}{own}"
        )
    if compressor.keeps_positions:
        raise InputError(
            f"{what} keeps its tokens at their places in the uncompressed video, and vLLM numbers the embeddings of a "
            f"prompt without gaps: use {working_row(config)}"
        )


def working_row(config: RunConfig) -> str:
    """The row of the tables that works, of the same share of tokens where there is one."""
    settings = config.as_dict()["compressor"]
    ratio = (settings.get("outer") or settings).get("retain_ratio")
    percent = round(100 * ratio) if isinstance(ratio, float) else 0
    return f"holitom_without_inner_r{percent if percent in (10, 15, 20, 25) else 15}"
