"""A tokenizer's chat template: which one it is, how to call it, and what it renders.

A template is foreign code that may raise anything; whatever it raises becomes `TemplateRefusal` here, and a
source that is not Jinja is the model's fault, a ModelError. What the text must hold is for `placement`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateSyntaxError

from adacd_cli.errors import ModelError, PromptError

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
