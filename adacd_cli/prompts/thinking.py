"""The tags around a model's thinking: those that a template knows, whether a prompt ends inside them, and
what an answer is without its thinking."""

from __future__ import annotations

import re
from typing import Any

from adacd_cli.prompts.prompts import ThinkingMarks

# gpt-oss: every answer begins in a channel, whatever the switches say
_CHANNELS = ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")

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

_HEADINGS = (
    ("Here is my thought process:", "Here is my response:"),
    ("## Thinking", "## Final Response"),
    ("**Thinking**", "**Answer**"),
    ("Thought:", "Final Answer:"),
    ("Thinking:", "Answer:"),
    ("Reasoning:", "Answer:"),
)
_WRITTEN = (
    *(tags for tags in TAGS if tags not in _HEADINGS),
    ("<|thought_start|>", "<|thought_end|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
    ("<scratchpad>", "</scratchpad>"),
    ("<analysis>", "</analysis>"),
    ("<reflection>", "</reflection>"),
    ("<inner_thoughts>", "</inner_thoughts>"),
)
"""Tags that models write, those of TAGS among them; headings count only at the start of an answer."""

_CLOSES = {opening.lower(): closing.lower() for opening, closing in _WRITTEN}
_ANY_TAG = re.compile(
    "(?<![`\"'])(?:" + "|".join(re.escape(tag) for tags in _WRITTEN for tag in tags) + ")", re.IGNORECASE
)
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^\n]{0,40}?<\|message\|>", re.IGNORECASE)
# gpt-oss with its special tokens stripped: "analysisThe user asks …assistantfinalHere is …"
_STRIPPED = re.compile(r"\s*(?:assistant\s*)?analysis(?=[A-Z\W]).*?assistant\s?final(?:json)?", re.DOTALL)
_STRIPPED_AND_CUT = re.compile(r"\s*(?:assistant)?analysis(?=[A-Z\"“])")
_STRIPPED_FINAL = re.compile(r"\s*(?:assistant)?final(?=[A-Z\"“])")


def without_thinking(text: str) -> str:
    """An answer without the thinking that a model writes before it, in whatever form; "" if nothing follows. The
    text is an answer, thinking in one of TAGS and an answer, or, where the chat template already opened the
    thinking, thinking, the closing tag and an answer. Control tokens may be there or stripped."""
    if stripped := _STRIPPED.match(text) or _STRIPPED_FINAL.match(text):
        text = text[stripped.end() :]
    elif _STRIPPED_AND_CUT.match(text):
        return ""
    start = text.lstrip()
    for opening, closing in _HEADINGS:
        if start[: len(opening)].lower() == opening.lower():
            found = re.search(rf"^\W*{re.escape(closing)}", start, re.IGNORECASE | re.MULTILINE)
            if found or opening == _HEADINGS[0][0]:
                text = start[found.end() :] if found else ""
            break
    return _without_blocks(_FINAL.sub(_CHANNELS[1], text))


def _without_blocks(text: str) -> str:
    """The text without what stands between tags, and without what stands before a closing tag alone."""
    lower = text.lower()
    if not any(tag in lower for tags in _CLOSES.items() for tag in tags):
        return text
    kept: list[str] = []
    begin, closing, opened = 0, "", 0
    for match in _ANY_TAG.finditer(text):
        tag = match[0].lower()
        if closing:
            if tag == closing:
                begin, closing = match.end(), ""
        elif tag in _CLOSES:
            kept.append(text[begin : match.start()])
            closing, opened = _CLOSES[tag], match.start()
        else:
            kept.clear()
            begin = match.end()
    if not closing:
        return "".join([*kept, text[begin:]])
    before = "".join(kept)
    # a tag that is only written about is not closed either
    return before + text[opened:] if before.strip() else ""


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
    """The marks to watch for in the answer, None when the model is not going to think, and warnings, one sentence
    each; from the chat template, the prompt that it rendered (the user's own tags hidden), and whether the user
    wants the model to think."""
    tags, end = find_tags(source, tokenizer), rendered.rstrip()
    warning = ""
    if tags is None:
        warning = "neither the chat template nor the tokenizer knows a thinking tag"
    elif end.endswith(tags[1]):
        warning = "the chat template closes it before the answer"
    if tags is None or warning:
        return None, ((f"Thinking is on, but {warning}.",) if thinking else ())
    marks = ThinkingMarks(*tags, opened=end.endswith(tags[0]))
    if thinking:
        return marks, ()
    if marks.opened or tags == _CHANNELS:
        return marks, ("This chat template always lets the model think first: it has no switch against it.",)
    return None, ()
