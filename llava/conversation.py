"""Prompt templates: a conversation is a list of ``[role, text]`` pairs and a way to join them."""

import copy
from dataclasses import dataclass, field
from enum import Enum, auto


class SeparatorStyle(Enum):
    """How turns are joined."""

    TWO = auto()  # "ROLE: text" with sep after the user's and sep2 after the assistant's turn
    CHATML = auto()  # role line, text, sep, newline
    PLAIN = auto()  # text and separators alone


@dataclass
class Conversation:
    """One dialogue in one template.

    Attributes:
        system: the system line, as the template writes it.
        roles: names of the user and of the assistant.
        sep: what ends a turn (and what generation stops at, except in style ``TWO``).
        sep2: what ends an assistant's turn in style ``TWO``.
        messages: mutable ``[role, text]`` pairs; a ``None`` text leaves the turn open.
    """

    system: str
    roles: tuple[str, str]
    sep_style: SeparatorStyle
    sep: str
    sep2: str | None = None
    version: str = ""
    messages: list[list[str | None]] = field(default_factory=list)

    def append_message(self, role: str, message: str | None) -> None:
        """Add one turn; ``None`` leaves it open for the model to fill."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """A copy that shares no message with this one."""
        return copy.deepcopy(self)

    def get_prompt(self) -> str:
        """The text that is tokenised."""
        if self.sep_style is SeparatorStyle.CHATML:
            head = f"{self.system}{self.sep}\n" if self.system else ""
            return head + "".join(f"{role}\n" + (f"{text}{self.sep}\n" if text else "") for role, text in self.messages)
        separators = (self.sep, self.sep2 if self.sep2 is not None else self.sep)
        turns = [(role, text, separators[turn % 2]) for turn, (role, text) in enumerate(self.messages)]
        if self.sep_style is SeparatorStyle.TWO:
            body = "".join(f"{role}: {text}{sep}" if text else f"{role}:" for role, text, sep in turns)
            return self.system + self.sep + body
        return self.system + "".join(f"{text}{sep}" if text else "" for _, text, sep in turns)


def _chatml(system: str, version: str) -> Conversation:
    roles = ("<|im_start|>user", "<|im_start|>assistant")
    return Conversation(
        f"<|im_start|>system\n{system}", roles, SeparatorStyle.CHATML, sep="<|im_end|>", version=version
    )


_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

conv_templates: dict[str, Conversation] = {
    "qwen_1_5": _chatml("You are a helpful assistant.", "qwen"),
    "qwen_2": _chatml("You are a helpful assistant.", "qwen"),
    "vicuna_v1": Conversation(
        _VICUNA_SYSTEM, ("USER", "ASSISTANT"), SeparatorStyle.TWO, sep=" ", sep2="</s>", version="v1"
    ),
    "plain": Conversation("", ("", ""), SeparatorStyle.PLAIN, sep="\n", version="plain"),
}
default_conversation = conv_templates["qwen_1_5"]
