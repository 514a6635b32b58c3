"""Where p* goes: both streams as rendered text.

It goes into a system message, before the user's own. Where the template has no system role, or takes one and
drops it, it goes in front of the first user message; there the user's own system text goes too, in both
streams. Whether a template did what it should is read from the rendered text, never assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from adacd_cli.errors import PromptError
from adacd_cli.prompts.rendered import Rendered
from adacd_cli.prompts.templates import (
    Dialect,
    TemplateRefusal,
    Turn,
    dialects,
    render,
    thinking_switches,
)

_OTHER_MODEL = "Use a model with another chat template, or mend the template in the tokenizer's folder."

FOLDED = "The chat template takes no system message; it stands in front of the first user message."

_MOMENTS = 5
"""How often both streams are rendered again because the clock of the template moved on between them."""


@dataclass(frozen=True)
class Texts:
    """What was said, as it is rendered.

    Attributes:
        turns: the messages of user and assistant, the last one the user's.
        system: the user's own system text, "" for none.
        contrast: p*, "" for none.
        name: what p* is called in an error.
    """

    turns: tuple[Turn, ...]
    system: str
    contrast: str
    name: str = "contrast prompt"


def render_streams(
    tokenizer: Any, source: str, texts: Texts, thinking: bool
) -> tuple[str, str, tuple[str, ...]]:
    """The unprompted and the prompted stream, and what the user should know, one sentence each.

    Raises:
        PromptError: the template cannot render the two streams.
        ModelError: the template is not valid Jinja.
    """
    dialect = _find_dialect(tokenizer, source, texts, thinking)
    try:
        streams = _render_both(tokenizer, source, dialect, _as_system(texts))
        fault = _find_fault(*streams, texts)
    except TemplateRefusal:
        fault = "no system role"
    if fault is None:
        return streams[0].text, streams[1].text, ()
    try:
        streams = _render_both(tokenizer, source, dialect, _folded(texts))
    except TemplateRefusal as refusal:
        raise _refused(refusal) from refusal
    fault = _find_fault(*streams, texts)
    if fault is not None:
        raise PromptError(fault, _OTHER_MODEL)
    return streams[0].text, streams[1].text, (FOLDED,) if texts.system else ()


def join_texts(*texts: str) -> str:
    """The texts that are not empty, a blank line apart."""
    return "\n\n".join(text for text in texts if text)


def _find_dialect(tokenizer: Any, source: str, texts: Texts, thinking: bool) -> Dialect:
    """How the template wants to be asked: the first way in which the turns alone show the question."""
    refusals = []
    silent = False
    for dialect in dialects(tokenizer, thinking_switches(source, thinking)):
        try:
            rendered = Rendered(render(tokenizer, source, texts.turns, dialect))
        except TemplateRefusal as refusal:
            refusals.append(refusal)
            continue
        if rendered.holds(texts.turns[-1].content):
            return dialect
        silent = True
    if silent:
        raise PromptError("The chat template leaves the user's message out of the prompt.", _OTHER_MODEL)
    raise _refused(refusals[0]) from refusals[0]


def _refused(refusal: TemplateRefusal) -> PromptError:
    return PromptError(
        f"The chat template refuses the conversation: {refusal}.",
        "Many templates want user and assistant in turn, the user first: start a new conversation; or use a "
        "model with another chat template.",
    )


def _as_system(texts: Texts) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """The messages of both streams, with system messages."""
    own, both = (
        (Turn("system", text),) if text else ()
        for text in (texts.system, join_texts(texts.contrast, texts.system))
    )
    return (*own, *texts.turns), (*both, *texts.turns)


def _folded(texts: Texts) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    """The messages of both streams, the system texts in front of the first user message."""
    place = next(place for place, turn in enumerate(texts.turns) if turn.role == "user")
    before, first, after = texts.turns[:place], texts.turns[place], texts.turns[place + 1 :]
    own = replace(first, content=join_texts(texts.system, first.content))
    both = replace(first, content=join_texts(texts.contrast, texts.system, first.content))
    return (*before, own, *after), (*before, both, *after)


def _render_both(
    tokenizer: Any, source: str, dialect: Dialect, turns: tuple[Sequence[Turn], Sequence[Turn]]
) -> tuple[Rendered, Rendered]:
    """Both streams, rendered in one moment: a date or a time in the template is the same in both."""
    unprompted = render(tokenizer, source, turns[0], dialect)
    prompted = render(tokenizer, source, turns[1], dialect)
    for _ in range(_MOMENTS if "strftime_now" in source else 0):
        again = render(tokenizer, source, turns[0], dialect)
        if again == unprompted:
            break
        unprompted, prompted = again, render(tokenizer, source, turns[1], dialect)
    return Rendered(unprompted), Rendered(prompted)


def _find_fault(unprompted: Rendered, prompted: Rendered, texts: Texts) -> str | None:
    """What is wrong with two rendered streams, as a sentence; None when nothing is."""
    question = texts.turns[-1].content
    if texts.contrast:
        if unprompted.text == prompted.text:
            return f"The chat template gives the same prompt with and without the {texts.name}."
        if prompted.count(texts.contrast) <= unprompted.count(texts.contrast):
            return f"The chat template leaves the {texts.name} out of the prompt."
    if texts.system:
        in_turns = sum(Rendered(turn.content).count(texts.system) for turn in texts.turns)
        if min(unprompted.count(texts.system), prompted.count(texts.system)) <= in_turns:
            return "The chat template leaves the system message out of the prompt."
    if not (unprompted.holds(question) and prompted.holds(question)):
        return "The chat template leaves the user's message out of the prompt."
    if not unprompted.ends_like(prompted, question):
        return "The chat template ends the two prompts in different generation prompts."
    return None
