"""A tokenizer's chat template: which one it is, how to call it, what it renders, and the tags around a model's
thinking.

A template is foreign code that may raise anything; whatever it raises becomes `TemplateRefusal` here, and a source
that is not Jinja is the model's fault, a ModelError. What the text must hold is for `placement`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateSyntaxError

from adacd_cli.errors import ModelError, PromptError
from adacd_cli.prompts.prompts import ThinkingMarks

# the flag that some templates read from the messages themselves to turn thinking off
NO_THINK_FLAG = "/no_think"
# template variables that turn thinking on and off by true and false
_BOOLEAN_SWITCHES = ("enable_thinking", "thinking", "open_thinking", "reasoning")
# template variables that measure thinking: tokens, 0 for none; "none", "low", "high" and the like
_OTHER_SWITCHES = ("thinking_budget", "reasoning_effort")
_NOT_THE_USERS = (
    *(
        "messages",
        "add_generation_prompt",
        "raise_exception",
        "strftime_now",
        "conversation",
        "chat_template",
    ),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors"),
    *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "self"),
)
"""What adacd, transformers and the tokenizer set, besides special tokens."""


class TemplateRefusal(Exception):
    """The template raised, whatever it raised; the text is its own reason."""


@dataclass(frozen=True)
class Turn:
    """One message as the template gets it: role `system`, `user`, `assistant` or `tool`, its text, and the rest."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def last_user(turns: Sequence[Turn]) -> int:
    """The place of the last user message, which is there."""
    return max(place for place, turn in enumerate(turns) if turn.role == "user")


@dataclass(frozen=True)
class Dialect:
    """How a template wants to be called: contents as lists of parts or as strings, and which variables."""

    parts: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


def find_template(tokenizer: Any) -> str | None:
    """The source of the tokenizer's chat template, of several the `default` or first one; None without one.
    PromptError where the tokenizer makes prompts in a way that is not a Jinja template."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = template.get("default") or next(iter(template.values()), None)
    if template:
        return str(template)
    try:
        tokenizer.get_chat_template()
    except NotImplementedError as error:
        raise PromptError(
            f"{type(tokenizer).__name__} has no Jinja chat template, which the contrast prompt needs.",
            "Load a revision or a copy of the model whose folder holds tokenizer.json and a chat template.",
        ) from error
    except (AttributeError, ValueError):
        pass
    return None


def thinking_switches(source: str, thinking: bool) -> dict[str, Any]:
    """The template variables that turn thinking on or off, those that the template reads. `enable_thinking` is
    always among them: a template without it ignores it."""
    switches: dict[str, Any] = {"enable_thinking": thinking}
    switches |= {name: thinking for name in _BOOLEAN_SWITCHES if _reads(source, name)}
    if _reads(source, "thinking_budget") and not thinking:
        switches["thinking_budget"] = 0
    if _reads(source, "reasoning_effort"):
        effort = "high" if thinking else "none"
        if re.search(rf"""(['"]){effort}\1""", source):
            switches["reasoning_effort"] = effort
    return switches


def takes(source: str, name: str) -> bool:
    """Whether the template reads a variable that a user may set."""
    return _reads(source, name) and name not in _NOT_THE_USERS and not name.endswith("_token")


def no_think_flag(source: str) -> str:
    """What is appended to the last user message to turn thinking off; "" where a variable does it."""
    has_switch = any(_reads(source, name) for name in (*_BOOLEAN_SWITCHES, *_OTHER_SWITCHES))
    return f" {NO_THINK_FLAG}" if NO_THINK_FLAG in source and not has_switch else ""


def _reads(source: str, name: str) -> bool:
    """Whether the source names a variable: not a message's field, and not a string."""
    return re.search(rf"""(?<![\w.'"]){name}(?![\w'"])""", source) is not None


def dialects(tokenizer: Any, switches: Mapping[str, Any]) -> list[Dialect]:
    """The ways to call a template, most usual first. The last ones are for templates made for tools, which fail on
    a missing list of tools, and for those that add up special tokens which the tokenizer does not have."""
    filled: dict[str, Any] = {
        "tools": [],
        "bos_token": tokenizer.bos_token or "",
        "eos_token": tokenizer.eos_token or "",
    }
    return [Dialect(parts, {**more, **switches}) for more in ({}, filled) for parts in (False, True)]


def render(tokenizer: Any, source: str, turns: Sequence[Turn], dialect: Dialect) -> str:
    """The rendered template with the generation prompt at its end. TemplateRefusal where the template raised;
    ModelError where its source is not valid Jinja."""
    messages = [{**turn.extra, "role": turn.role, "content": turn.content} for turn in turns]
    if dialect.parts:
        messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=True, **dialect.variables
        )
    except Exception as error:  # foreign code: jinja2's errors, TypeError, KeyError and whatever else
        reason = " ".join(str(error).split()).rstrip(".")
        name = type(error).__name__
        if isinstance(error, TemplateSyntaxError):
            raise ModelError(
                f"The model's chat template is broken: {name}: {reason}.",
                "Fix the chat template in the model's folder, or use another model.",
            ) from error
        own = name == "TemplateError" and reason  # the template's own words, by raise_exception
        raise TemplateRefusal(reason if own else f"{name}: {reason}") from error
    return str(text)


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
