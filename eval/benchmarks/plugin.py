"""Entry point ``lmms_eval.models``: what lmms-eval loads at every start, so nothing heavy is imported here.

python -m lmms_eval --model llava_onevision_compressed --model_args pretrained=DIR,config=FILE ...
python -m lmms_eval --model llava_vid_compressed --model_args pretrained=DIR,method=holitom,retain_ratio=0.15 ...
"""

from typing import Any

# stock model -> our class in eval.benchmarks.lmms.models
CLASSES = {"llava_onevision": "LlavaOneVisionCompressed", "llava_vid": "LlavaVidCompressed"}


def manifests() -> list[Any]:
    """Our models; the stock ones of lmms-eval stay as they are."""
    from lmms_eval.models.registry_v2 import ModelManifest  # noqa: PLC0415

    return [
        ModelManifest(model_id=f"{stock}_compressed", simple_class_path=f"eval.benchmarks.lmms.models.{name}")
        for stock, name in CLASSES.items()
    ]
