"""One question about one video, in the form a model of this project's runtime is asked it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from llava.conversation import conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.model.newlines import count_newlines
from llava.model.placement import compute_device
from llava.video import VideoClip
from llava.video_prompt import video_question

if TYPE_CHECKING:
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM


def prompt_ids(tokenizer: Any, turn: str) -> Tensor:
    """A user's turn in the model's chat template, (1, text) int64 with -200 at the placeholders."""
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], turn)
    conversation.append_message(conversation.roles[1], None)
    ids = tokenizer_image_token(conversation.get_prompt(), tokenizer, return_tensors="pt")
    assert isinstance(ids, Tensor)
    return ids[None]


class VideoPrompt:
    """One question about one clip, ready for a model."""

    def __init__(self, tokenizer: Any, model: LlavaQwenForCausalLM, clip: VideoClip, processor: Any, text: str) -> None:
        from llava.model.visual_inputs import VisualEncoder  # noqa: PLC0415

        self.tokenizer, self.model = tokenizer, model
        ids = prompt_ids(tokenizer, video_question(text, clip, model.config))
        self.ids = ids.to(compute_device(model.get_model().embed_tokens))
        pixels = processor.preprocess(clip.frames, return_tensors="pt")["pixel_values"]
        self.pixels = pixels.to(model.get_vision_tower().device, model.dtype)
        encoder = VisualEncoder(model.get_model(), model.config, None)
        self.visual_tokens = len(pixels) * encoder.tokens_per_frame
        self.newlines = count_newlines(len(pixels), encoder.newline_mode, encoder.tokens_per_frame)

    @property
    def length(self) -> int:
        """Tokens of the uncompressed prompt: text, video and its newlines, in place of the placeholder."""
        return self.ids.shape[1] - 1 + self.visual_tokens + self.newlines

    def generate(self, new_tokens: int) -> Tensor:
        """Greedy new tokens, (1, at most new_tokens)."""
        return self.model.generate(
            self.ids,
            images=[self.pixels],
            modalities=["video"],
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    def text(self, new_tokens: int) -> str:
        """The greedy answer in words, without special tokens."""
        return str(self.tokenizer.batch_decode(self.generate(new_tokens), skip_special_tokens=True)[0]).strip()
