"""Entry point ``lmms_eval.models``: what lmms-eval loads at every start, so nothing heavy is imported here.

python -m lmms_eval --model llava_onevision_compressed --model_args pretrained=DIR,config=FILE ...
python -m lmms_eval --model llava_vid_compressed --model_args pretrained=DIR,method=holitom,retain_ratio=0.15 ...

The classes are looked up in this module, in an install ``holitom_eval.benchmarks.plugin``. Only when one is asked for
does this package take the name ``eval`` (see :mod:`eval`).
"""

import importlib
from typing import Any

# stock model -> our class in eval.benchmarks.lmms.models
CLASSES = {"llava_onevision": "LlavaOneVisionCompressed", "llava_vid": "LlavaVidCompressed"}


def manifests() -> list[Any]:
    """Our models; the stock ones of lmms-eval stay as they are."""
    from lmms_eval.models.registry_v2 import ModelManifest  # noqa: PLC0415

    return [
        ModelManifest(model_id=f"{stock}_compressed", simple_class_path=f"{__name__}.{name}")
        for stock, name in CLASSES.items()
    ]


def __getattr__(name: str) -> Any:
    """A class of ours, when lmms-eval is asked for that model.

    Raises:
        InputError: if another ``eval``, or another ``llava`` than ours, is in the way.
    """
    if name not in CLASSES.values():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from holitom.runtime import require_runtime  # noqa: PLC0415

    require_runtime()
    importlib.import_module(__name__.partition(".")[0]).claim()
    return getattr(importlib.import_module("eval.benchmarks.lmms.models"), name)
