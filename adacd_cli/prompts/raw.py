"""`build_text_pair`: a text that the model goes on with, as it is, to the token ids of the two streams.

There is no chat template: the contrast prompt and a blank line stand in front of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adacd_cli.config.methods import spoken
from adacd_cli.errors import PromptError
from adacd_cli.prompts.check import check_contrast, check_differs, check_texts
from adacd_cli.prompts.control import Escape
from adacd_cli.prompts.encode import Encoder, beginning
from adacd_cli.prompts.pair import PromptPair

_GAP = "\n\n"


def build_text_pair(
    tokenizer: Any,
    prompt: str | Sequence[int],
    contrast_prompt: str | None,
    *,
    setting: str = "contrast_prompt",
) -> PromptPair:
    """The prompts of both streams for one text.

    Args:
        tokenizer: any transformers tokenizer.
        prompt: the text, whose control tokens are encoded as the text that they are, or its token ids, which
            are taken as they are. The id that the tokenizer begins a text with comes first in both streams.
        contrast_prompt: p*, which only the prompted stream gets; None where no stream reads one.
        setting: the setting that p* comes from, for what is said of it.

    Raises:
        PromptError: the text is empty, a token id is not one of the tokenizer's, or p* is of no use.
    """
    check_contrast(contrast_prompt, setting)
    contrast = contrast_prompt or ""
    text = prompt if isinstance(prompt, str) else ""
    if not prompt:
        raise PromptError("The prompt is empty.", "Give a prompt with some text in it.")
    check_texts({spoken(setting): contrast, "prompt": text})
    encoder, begin = Encoder.of(tokenizer), beginning(tokenizer)
    escape = Escape(encoder.control, [contrast, text])
    before = escape.hide(contrast) + _GAP if contrast else ""

    def encode(hidden: str) -> tuple[int, ...]:
        return encoder.encode(tokenizer, hidden, escape)

    if isinstance(prompt, str):
        prompted, unprompted = encode(before + escape.hide(text)), encode(escape.hide(text))
    else:
        unprompted = _checked(prompt, encoder.size, begin)
        prompted = (*(encode(before) if before else ()), *unprompted)
    pair = PromptPair(
        prompted_ids=begin + prompted,
        unprompted_ids=begin + unprompted,
        contrast_prompt=contrast,
        prompted_text=escape.show(before) + text,
        unprompted_text=text,
    )
    if contrast:
        check_differs(pair, setting)
    return pair


def _checked(ids: Sequence[int], size: int, begin: tuple[int, ...]) -> tuple[int, ...]:
    """The ids without what the tokenizer begins a text with."""
    wrong = next((index for index in ids if not 0 <= index < size), None)
    if wrong is not None:
        raise PromptError(
            f"The prompt holds the token id {wrong}, and the tokenizer's go from 0 to {size - 1}.",
            "Encode the prompt with the model's own tokenizer.",
        )
    return tuple(ids[len(begin) :] if tuple(ids[: len(begin)]) == begin else ids)
