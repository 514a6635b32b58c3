"""The tags around a model's thinking: which ones a template knows, and whether a prompt ends inside them."""

from __future__ import annotations

from typing import Any

from adacd_cli.prompts.prompts import ThinkingMarks

_CHANNELS = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")
"""gpt-oss: every answer begins in a channel, whatever the switches say."""

TAGS = (
    _CHANNELS,
    ("<|channel>thought", "<channel|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("Here is my thought process:", "Here is my response:"),
)
"""Opening and closing tags in use, rarer ones first: a template may name the usual ones beside its own."""


def find_tags(source: str, tokenizer: Any) -> tuple[str, str] | None:
    """The tags that the template names, else those among the tokenizer's added tokens; None without any."""
    for tags in TAGS:
        if tags[1] in source:
            return tags
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return next((tags for tags in TAGS if added.issuperset(tags)), None)


def history_tags(source: str) -> tuple[str, ...]:
    """The tags that the template may look for in earlier answers, to cut their thinking out."""
    # A template of channels raises when it meets one in a message.
    return next((tags for tags in TAGS if tags[1] in source and tags != _CHANNELS), ())


def find_marks(
    source: str, tokenizer: Any, rendered: str, thinking: bool
) -> tuple[ThinkingMarks | None, tuple[str, ...]]:
    """The marks to watch for in the answer, and what the user should know about them.

    Args:
        source: the chat template.
        tokenizer: the model's tokenizer.
        rendered: the rendered prompt, the user's own tags hidden.
        thinking: whether the user wants the model to think.

    Returns:
        The marks, None when the model is not going to think, and warnings, one sentence each.
    """
    tags = find_tags(source, tokenizer)
    if tags is None:
        warning = "Thinking is on, but neither the chat template nor the tokenizer knows a thinking tag."
        return None, ((warning,) if thinking else ())
    end = rendered.rstrip()
    marks = ThinkingMarks(*tags, opened=end.endswith(tags[0]))
    if end.endswith(tags[1]):
        warning = "Thinking is on, but the chat template closes it before the answer."
        return None, ((warning,) if thinking else ())
    if thinking:
        return marks, ()
    if marks.opened or tags == _CHANNELS:
        return marks, ("This chat template always lets the model think first: it has no switch against it.",)
    return None, ()
