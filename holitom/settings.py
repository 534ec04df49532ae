"""YAML files to configurations, strictly: an unknown key, a missing method or a wrong type is an error."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from holitom.budget import fill_up
from holitom.compressor import Compressor
from holitom.errors import InputError, shown
from holitom.methods import method_config
from holitom.shipped import config_file
from holitom.strict_yaml import parse_yaml, read_yaml


@dataclass(frozen=True)
class ModelConfig:
    """The checkpoint a run uses and how it sees videos.

    Attributes:
        pretrained: folder or hub id; None where the caller brings a model.
        num_frames: frames sampled per video.
        conv_template: name of the prompt template.
    """

    pretrained: str | None = None
    num_frames: int = 32
    conv_template: str = "qwen_1_5"

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise InputError(f"num_frames = {self.num_frames} is out of range: it must be at least 1")


@dataclass(frozen=True)
class RunConfig:
    """One YAML file: a checkpoint and a method.

    Attributes:
        model: the checkpoint.
        method: the method's name in the registry, or None to run without compression.
        compressor: the method's settings, or None.
        fill_budget: beside the method's settings: the outer stage keeps exactly as many tokens as its budget allows,
            see :mod:`holitom.budget`. No file of the paper's rows sets it.
    """

    model: ModelConfig
    method: str | None
    compressor: Any
    fill_budget: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What the file says, every field spelled out; ``fill_budget`` only where it is on."""
        filled = {"fill_budget": True} if self.fill_budget else {}
        settings = None if self.method is None else {"method": self.method, **filled, **asdict(self.compressor)}
        return {"model": asdict(self.model), "compressor": settings}

    def build(self) -> Compressor | None:
        """A compressor, or None to run without compression.

        Raises:
            InputError: if a budget is to be filled that the method does not have.
        """
        if self.compressor is None:
            return None
        plain = self.compressor.build()
        return Compressor(plain.outer, plain.inner, plain.tower, fill_up) if self.fill_budget else plain


def _convert(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type that a field declares; only nested mappings and int to float change."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise InputError(f"{where} is null: it must be set")
    for option in options:
        if is_dataclass(option) and isinstance(option, type):
            return from_mapping(option, value, where)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value, where)
    plain = tuple(option for option in options if isinstance(option, type))
    wrong_bool = isinstance(value, bool) and bool not in plain
    if plain and len(plain) == len(options) and (wrong_bool or not isinstance(value, plain)):
        names = " or ".join(option.__name__ for option in plain)
        raise InputError(f"{where} = {shown(value)} has the wrong type: it must be {names}")
    return value


def _named(key: Any) -> str:
    return key if isinstance(key, str) and key.isprintable() and len(key) <= 200 else shown(key)


def _as_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{where} is an integer that no number holds: it must be of ordinary size") from None


def from_mapping(cls: type, mapping: Any, where: str = "") -> Any:
    """A dataclass from a mapping with its fields as keys.

    Raises:
        InputError: for an unknown key, a missing one without a default, or a value out of range.
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where or 'the configuration'} = {shown(mapping)} is not a mapping of settings")
    known = {entry.name: entry for entry in fields(cls)}
    prefix = f"{where}." if where else ""
    for key in mapping:
        if key not in known:
            raise InputError(f"unknown key {prefix}{_named(key)}; {cls.__name__} has {', '.join(known)}")
    for name, entry in known.items():
        if name not in mapping and entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"{prefix}{name} is missing")
    hints = get_type_hints(cls)
    values = {key: _convert(value, hints[key], f"{prefix}{key}") for key, value in mapping.items()}
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{prefix}{error}" if prefix and not str(error).startswith(prefix) else str(error)) from None


def parse_config(raw: Any) -> RunConfig:
    """A run's configuration from the contents of a YAML file."""
    if not isinstance(raw, Mapping):
        raise InputError("the configuration is empty: it needs the keys model and compressor")
    for key in raw:
        if key not in ("model", "compressor"):
            raise InputError(f"unknown key {_named(key)}; a configuration has model, compressor")
    model = from_mapping(ModelConfig, {} if raw.get("model") is None else raw["model"], "model")
    settings = raw.get("compressor")
    if settings is None:
        return RunConfig(model, None, None)
    if not isinstance(settings, Mapping) or "method" not in settings:
        raise InputError("compressor.method is missing: name a method, or write compressor: null")
    if not isinstance(settings["method"], str):
        raise InputError(f"compressor.method = {shown(settings['method'])} is no name: name a method")
    fill_budget = settings.get("fill_budget", False)
    if not isinstance(fill_budget, bool):
        raise InputError(f"compressor.fill_budget = {shown(fill_budget)} has the wrong type: it must be true or false")
    rest = {key: value for key, value in settings.items() if key not in ("method", "fill_budget")}
    name = settings["method"]
    return RunConfig(model, name, from_mapping(method_config(name), rest, "compressor"), fill_budget)


def _override(raw: dict[str, Any], assignment: str) -> None:
    """Apply ``outer.retain_ratio=0.2`` to the compressor's settings (or ``model.num_frames=8`` to the model's)."""
    path, sign, text = assignment.partition("=")
    if not sign or not path.isprintable() or len(path) > 200:
        raise InputError(f"override {shown(assignment)} is not of the form key.path=value")
    keys = path.strip().split(".")
    keys = keys if keys[0] in ("model", "compressor") else ["compressor", *keys]
    node = raw
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise InputError(f"override {shown(assignment)}: {key} is a value, not a group of settings")
    try:
        node[keys[-1]] = parse_yaml(text)
    except InputError as error:
        raise InputError(f"override {shown(assignment)}: {error}") from None


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read one YAML file.

    Args:
        path: the file, or the name of a shipped one, ``llava_onevision_7b/holitom_r10``.
        overrides: assignments such as ``outer.retain_ratio=0.2``, applied before validation.

    Raises:
        InputError: if the file is absent or no YAML, or a key or value is wrong; the message names it.
    """
    file = config_file(path)
    try:
        raw = read_yaml(file)
    except FileNotFoundError:
        raise InputError(f"there is no configuration file {str(path)!r}: see configs/ for those of the paper") from None
    try:
        for assignment in overrides:
            if isinstance(raw, dict):
                _override(raw, assignment)
        return parse_config(raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def method_defaults(method: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A method as it stands without a file, with assignments as :func:`load_config` takes them.

    Raises:
        InputError: for an unknown method, key or value.
    """
    raw: dict[str, Any] = {"compressor": {"method": method}}
    for assignment in overrides:
        _override(raw, assignment)
    return parse_config(raw)


def load_compressor(path: str | Path, overrides: Sequence[str] = ()) -> Compressor:
    """The compressor of one YAML file, applied to no model yet; see :func:`load_config`.

    Raises:
        InputError: as :func:`load_config`, and if the file asks for no compression.
    """
    compressor = load_config(path, overrides).build()
    if compressor is None:
        raise InputError(f"{path}: compressor is null, so there is nothing to apply")
    return compressor
