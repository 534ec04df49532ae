"""Token numbers of prompts around a video, piece by piece; equal to encoding the whole text."""

from functools import cache
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from eval.synthetic.world.questions import POST_PROMPT, Question
from eval.synthetic.world.tokenizer import WORD_PROMPT
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates


class Prompts:
    """Encodes questions for training.

    Attributes:
        tokenizer: of the checkpoint.
        before: tokens in front of the video.
    """

    def __init__(self, folder: str | Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        template = conv_templates["qwen_1_5"].copy()
        template.append_message(template.roles[0], f"{DEFAULT_IMAGE_TOKEN}\nQUESTION")
        template.append_message(template.roles[1], None)
        before, after = template.get_prompt().split(DEFAULT_IMAGE_TOKEN)
        self._between, self._after = after.split("QUESTION")
        self.before = self.tokenizer.encode(before)
        self.end = self.tokenizer.encode("<|im_end|>")
        self._encode = cache(lambda text: tuple(self.tokenizer.encode(text)))

    def letters(self, question: Question) -> tuple[list[int], list[int]]:
        """Tokens after the video, and of the answer: the letter."""
        ids = [*self._encode(self._between), *self._encode(question.text)]
        for letter, option in zip("ABCD", question.options, strict=True):
            ids += [*self._encode("\n"), *self._encode(f"{letter}."), *self._encode(f" {option}")]
        ids += [*self._encode("\n"), *self._encode(POST_PROMPT), *self._encode(self._after)]
        return ids, [*self._encode("ABCD"[question.answer]), *self.end]

    def words(self, question: Question) -> tuple[list[int], list[int]]:
        """Tokens after the video without options, and of the answer: its words."""
        ids = [*self._encode(self._between), *self._encode(question.text), *self._encode("\n")]
        ids += [*self._encode(WORD_PROMPT), *self._encode(self._after)]
        return ids, [*self._encode(f" {question.options[question.answer]}"), *self.end]

    def early(self, question: Question) -> tuple[int, list[int]]:
        """Place of the question mark among the tokens after the video, and the tokens of the answer's words."""
        place = len(self._encode(self._between)) + len(self._encode(question.text)) - 1
        return place, [*self._encode(f" {question.options[question.answer]}")]

    def half(self, question: Question, word: int) -> tuple[list[int], list[int]]:
        """One of the two words that say where something is: it teaches the two axes one by one."""
        pair = ("top bottom", "left right")[word]
        answer = question.options[question.answer].split()[word]
        return self.words(Question("half", f"{question.text} {pair}?", (answer,), 0))

    def told(self, question: Question) -> tuple[list[int], list[int]]:
        """A question whose text gives the answer away: it teaches to find an option's letter, without a video."""
        text = f"The answer is {question.options[question.answer]}."
        return self.letters(Question("told", text, question.options, question.answer))


def padded(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Questions with their answers, and labels.

    Args:
        rows: question tokens and answer tokens.
        pad: token that fills up.

    Returns:
        Tokens ``(rows, longest)`` and labels of the same shape: at each place the token to come where it belongs to the
        answer, else -100.
    """
    longest = max(len(ids) + len(answer) - 1 for ids, answer in rows)
    tokens = np.full((len(rows), longest), pad, np.int64)
    labels = np.full((len(rows), longest), -100, np.int64)
    for number, (ids, answer) in enumerate(rows):
        whole = [*ids, *answer]
        tokens[number, : len(whole) - 1] = whole[:-1]
        labels[number, len(ids) - 1 : len(whole) - 1] = answer
    return tokens, labels
