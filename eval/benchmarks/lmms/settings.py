"""Method settings as ``--model_args`` carries them: a YAML file, or single values by their names."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from holitom.compressor import Compressor
from holitom.methods import method_config
from holitom.settings import RunConfig, load_config, parse_config
from holitom.strict_yaml import parse_yaml
from llava.errors import InputError, shown

VANILLA = "vanilla"
# a result is named and compared by its configuration and --set: --model-args must not change them unseen
_OF_THE_CONFIG = {"max_frames_num": "model.num_frames", "conv_template": "model.conv_template"}
_OF_OPTIONS = frozenset(
    {"pretrained", "config", "method", "answers", "on_bad_video", "reuse", "prefetch", "engine", "engine_args"}
)


def _paths(cls: type, prefix: str = "") -> list[str]:
    """Dotted names of all settings of a method, nested groups included."""
    hints = get_type_hints(cls)
    found = []
    for entry in fields(cls):
        hint = hints[entry.name]
        nested = [option for option in (hint, *get_args(hint)) if isinstance(option, type) and is_dataclass(option)]
        found += _paths(nested[0], f"{prefix}{entry.name}.") if nested else [f"{prefix}{entry.name}"]
    return found


def setting_path(method: str, name: str) -> str:
    """The dotted path of a setting that may be given by its last part: ``retain_ratio`` is ``outer.retain_ratio``.

    Raises:
        InputError: if the method has no such setting, or several.
    """
    if name == "fill_budget":  # beside any method's settings
        return name
    known = _paths(method_config(method))
    if any(path.startswith(f"{name}.") for path in known):  # a whole group: outer=null
        return name
    found = [path for path in known if path == name or path.endswith(f".{name}")]
    if len(found) != 1:
        what = f"may be any of {', '.join(found)}" if found else f"is unknown; {method} has {', '.join(known)}"
        raise InputError(f"setting {name!r} of method {method!r} {what}")
    return found[0]


def _insert(tree: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value


def run_config(config: str | None, method: str | None, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration that ``config=FILE`` or ``method=NAME``, with single settings beside it, asks for.

    Args:
        config: a YAML file; its settings are replaced by those given.
        method: a method of the registry with its defaults, or "vanilla"; None is the file's.
        settings: values by name (``retain_ratio``, ``outer.retain_ratio``, ``model.num_frames``).

    Raises:
        InputError: for both or an unknown method, an unknown or ambiguous setting, or a wrong value.
    """
    if config is not None and method is not None:
        raise InputError(f"config = {config!r} and method = {method!r}: give one of them")
    name = method if config is None else load_config(config).method
    name = None if name == VANILLA else name
    values = {}
    for key, value in settings.items():
        plain = key.removeprefix("compressor.")
        if not key.startswith("model.") and name is None:
            raise InputError(f"setting {key!r} needs a method: vanilla has none; give method=NAME or config=FILE")
        values[key if key.startswith("model.") else f"compressor.{setting_path(str(name), plain)}"] = value
    if config is not None:
        return load_config(config, [f"{path}={json.dumps(value)}" for path, value in values.items()])
    raw: dict[str, Any] = {"model": {}, "compressor": None if name is None else {"method": name}}
    for path, value in values.items():
        _insert(raw, path, value)
    return parse_config(raw)


def stages_that_compress(compressor: Compressor, frames: int, tokens_per_frame: int) -> list[str]:
    """Which stages, "outer" and "inner", must leave tokens of such a video out; none for vanilla and ratios of 1."""
    outer, inner = compressor.outer, compressor.inner
    found = []
    if outer is not None and outer.most_kept(frames, tokens_per_frame) < frames * tokens_per_frame:
        found.append("outer")
    if any(not stage.keeps_all for stage in getattr(inner, "stages", ())):
        found.append("inner")
    return found


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts as a mapping, values read as YAML.

    Raises:
        InputError: for a text without a sign or with a value that is no YAML.
    """
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise InputError(f"{shown(text)} is not of the form key=value")
        try:
            found[key] = parse_yaml(value)
        except InputError as error:
            raise InputError(f"{shown(text)}: {error}") from None
    return found


def model_arguments(texts: Sequence[str], method: str | None) -> dict[str, Any]:
    """The stock model's arguments; what the configuration or an option decides is refused.

    Raises:
        InputError: for such an argument: the result would bear the name of a configuration it was not made with.
    """
    found = assignments(texts)
    for name in found:
        setting = _OF_THE_CONFIG.get(name) or (name if name.startswith("model.") else None)
        if setting is None and method is not None:
            with suppress(InputError):  # none of the method's
                setting = setting_path(method, name)
        if setting is not None:
            raise InputError(f"--model-args {name}: the configuration decides it, use --set {setting}=VALUE")
        if name in _OF_OPTIONS:
            raise InputError(f"--model-args {name}: the command line has it elsewhere, see --help")
    return found
