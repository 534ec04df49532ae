"""The models that lmms-eval finds by our entry point: its own ``llava_onevision`` and ``llava_vid``, with a method on.

Prompts, frames and generation are the stock models' own. What is added: a method from ``config=FILE`` or single
settings, one request at a time with every answer logged, tokens per stage, and no answer about a video that was not
seen.

    python -m lmms_eval --model llava_onevision_compressed --tasks videomme \\
        --model_args pretrained=CHECKPOINT,config=configs/llava_onevision_7b/holitom_r15.yaml,answers=outputs/answers
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from eval.benchmarks.lmms.answering import Answering
from llava.video import uniform_indices


@cache
def _classes() -> dict[str, type]:
    """The two models; made on first use, because importing lmms-eval takes seconds."""
    from lmms_eval.models.simple.llava_onevision import Llava_OneVision  # noqa: PLC0415
    from lmms_eval.models.simple.llava_vid import LlavaVid  # noqa: PLC0415

    class LlavaOneVisionCompressed(Answering, Llava_OneVision):
        """``llava_onevision`` with a method on."""

        stock_id = "llava_onevision"

        def choose_frames(self, total_frames: int, fps: float) -> list[int]:
            """Uniform, first and last included."""
            return uniform_indices(total_frames, int(self.max_frames_num))

        def load_video(self, video_path: Any, max_frames_num: int) -> Any:
            """The frames read before, (frames, height, width, 3) uint8 RGB."""
            return self.clip.frames

    class LlavaVidCompressed(Answering, LlavaVid):
        """``llava_vid`` with a method on."""

        stock_id = "llava_vid"

        def choose_frames(self, total_frames: int, fps: float) -> list[int]:
            """``video_fps`` frames a second; uniform where these are too many, or with ``force_sample``."""
            steady = list(range(0, total_frames, max(1, round(fps / self.fps))))
            if len(steady) > self.max_frames_num or self.force_sample:
                return uniform_indices(total_frames, self.max_frames_num)
            return steady

        def load_video(self, video_path: Any, max_frames_num: int, fps: int, force_sample: bool = False) -> Any:
            """The frames read before, their times as the time instruction words them, and the video's seconds."""
            clip = self.clip
            step = max(1, round(clip.fps / self.fps))
            steady = clip.indices == tuple(range(0, clip.total_frames, step)) and not self.force_sample
            times = ",".join(f"{index / (step if steady else clip.fps):.2f}s" for index in clip.indices)
            return clip.frames, times, clip.total_frames / clip.fps

    return {built.__name__: built for built in (LlavaOneVisionCompressed, LlavaVidCompressed)}


def __getattr__(name: str) -> Callable[..., Any]:
    """The harness asks this module for its models by name."""
    if name in ("LlavaOneVisionCompressed", "LlavaVidCompressed"):
        return _classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
