"""The value that the prompt rooms hand to the engine: the token ids of the two streams."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThinkingMarks:
    """The tags a thinking model writes around its thinking, e.g. `<think>` and `</think>`.

    Attributes:
        open: opening tag as text.
        close: closing tag as text.
        opened: whether the generation prompt already ends inside an opened tag.
    """

    open: str
    close: str
    opened: bool


@dataclass(frozen=True)
class PromptPair:
    """One conversation, rendered for both streams; both end in the same generation prompt.

    Attributes:
        prompted_ids: token ids with the contrast prompt p*.
        unprompted_ids: token ids without it.
        contrast_prompt: p* itself; "" where no stream reads one.
        prompted_text: the rendered template behind prompted_ids.
        unprompted_text: the rendered template behind unprompted_ids.
        thinking: the thinking tags to watch for; None when the model is not going to think.
        warnings: what the user should know about how the pair was made, one sentence each.
    """

    prompted_ids: tuple[int, ...]
    unprompted_ids: tuple[int, ...]
    contrast_prompt: str
    prompted_text: str = ""
    unprompted_text: str = ""
    thinking: ThinkingMarks | None = None
    warnings: tuple[str, ...] = ()
