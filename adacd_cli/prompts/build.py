"""`build_pair`: a conversation and a contrast prompt, if any, to the token ids of the two streams.

It checks what was said, hides its control tokens, has `placement` render both streams, and encodes them. A
model without a chat template gets plain text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adacd_cli.config.methods import spoken
from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError
from adacd_cli.prompts.check import check_contrast, check_differs, check_texts
from adacd_cli.prompts.control import Escape
from adacd_cli.prompts.encode import Encoder, beginning
from adacd_cli.prompts.pair import PromptPair, ThinkingMarks
from adacd_cli.prompts.placement import Texts, join_texts, render_streams
from adacd_cli.prompts.templates import Turn, find_template, no_think_flag
from adacd_cli.prompts.thinking import find_marks, history_tags

_NO_TEMPLATE = "This model has no chat template; it gets the conversation as plain text."


def build_pair(
    tokenizer: Any,
    conversation: Conversation,
    contrast_prompt: str | None,
    *,
    thinking: bool = False,
    setting: str = "contrast_prompt",
) -> PromptPair:
    """The prompts of both streams for one conversation.

    Args:
        tokenizer: any transformers tokenizer, with or without a chat template.
        conversation: what was said; it ends in a user message.
        contrast_prompt: p*, which only the prompted stream gets; None where no stream reads one.
        thinking: whether a thinking model may think before it answers.
        setting: the setting that p* comes from, for what is said of it.

    Returns:
        A pair whose streams differ by p*, both with the user's own system text, and with the same end.
        Without p* they are the same.

    Raises:
        PromptError: no such pair can be made; the message says what is in the way.
        ModelError: the model's chat template is not valid Jinja.
    """
    _check(conversation, contrast_prompt, setting)
    contrast = contrast_prompt or ""
    source = find_template(tokenizer)
    encoder = Encoder.of(tokenizer)
    said = [message.content for message in conversation.messages]
    escape = Escape(encoder.control, [contrast, conversation.system or "", *said], source or "")
    texts = replace(_hide(conversation, contrast, escape, source, thinking), name=spoken(setting))
    marks: ThinkingMarks | None = None
    if source is None:
        unprompted, prompted = _plain_streams(texts)
        warnings: tuple[str, ...] = (_NO_TEMPLATE,)
        begin = beginning(tokenizer)
    else:
        unprompted, prompted, warnings = render_streams(tokenizer, source, texts, thinking)
        marks, more = find_marks(source, tokenizer, prompted, thinking)
        warnings, begin = warnings + more, ()
    pair = PromptPair(
        prompted_ids=begin + encoder.encode(tokenizer, prompted, escape),
        unprompted_ids=begin + encoder.encode(tokenizer, unprompted, escape),
        contrast_prompt=contrast,
        prompted_text=escape.show(prompted),
        unprompted_text=escape.show(unprompted),
        thinking=marks,
        warnings=warnings,
    )
    if contrast:
        check_differs(pair, setting)
    return pair


def _check(conversation: Conversation, contrast_prompt: str | None, setting: str) -> None:
    messages = conversation.messages
    check_contrast(contrast_prompt, setting)
    if not messages or messages[-1].role != "user":
        raise PromptError(
            "The conversation does not end in a user message, so there is nothing to answer.",
            "Add a user message at its end.",
        )
    if not messages[-1].content.strip():
        raise PromptError("The prompt is empty.", "Give a prompt with some text in it.")
    texts = {spoken(setting): contrast_prompt or "", "system message": conversation.system or ""}
    texts |= {f"{message.role} message {place}": message.content for place, message in enumerate(messages, 1)}
    check_texts(texts)


def _hide(
    conversation: Conversation, contrast_prompt: str, escape: Escape, source: str | None, thinking: bool
) -> Texts:
    """What was said, its control tokens hidden, with the flag against thinking where a template reads one."""
    # Templates cut the thinking out of earlier answers, so they must see its tags there.
    keep = {"assistant": history_tags(source) if source else (), "user": ()}
    turns = [Turn(each.role, escape.hide(each.content, keep[each.role])) for each in conversation.messages]
    if source and not thinking:
        turns[-1] = Turn("user", turns[-1].content + no_think_flag(source))
    system = conversation.system or ""
    return Texts(tuple(turns), escape.hide(system) if system.strip() else "", escape.hide(contrast_prompt))


def _plain_streams(texts: Texts) -> tuple[str, str]:
    """Both streams as plain text, its parts a blank line apart."""
    said = [turn.content for turn in texts.turns]
    return join_texts(texts.system, *said), join_texts(texts.contrast, texts.system, *said)
