"""The rendered text of every stream: how the chat template takes the conversation is tried, and checked.

Where the template has no system role, or takes a system message and drops it, the system text goes in front of the
first user message, in all streams alike. Tool calls, their results and late system messages stand in the messages
around them as text, where words of our own in their place show that the template leaves them out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from adacd_cli.config import SETTINGS
from adacd_cli.config.methods import spoken
from adacd_cli.errors import PromptError
from adacd_cli.prompts.placement import PLACEMENTS, Placement, Rendered, Said
from adacd_cli.prompts.templates import (
    Dialect,
    TemplateRefusal,
    Turn,
    dialects,
    last_user,
    render,
    thinking_switches,
)

FOLDED = "The chat template takes no system message; it stands in front of the first user message."
NO_TOOLS = "The chat template does not show the tools, so the model is not told of them."
_OTHER_MODEL = "Use a model with another chat template, or fix the template in the tokenizer's folder."
# how often all streams are rendered again because the clock of the template moved on between them
_MOMENTS = 5
LATE = "The chat template takes no system message there; it stands in the next user message."
AS_TEXT = "The chat template takes no tool calls and results; they stand in the messages as text."


def layouts(turns: tuple[Turn, ...]) -> Iterator[tuple[tuple[Turn, ...], tuple[str, ...]]]:
    """The turns as they are, then as templates can take them that do not take those, with warnings."""
    yield turns, ()
    texts = tuple(_tools_as_text(turns))
    late = any(turn.role == "system" for turn in turns)
    if texts != turns:
        yield texts, (AS_TEXT,)
    if late:
        yield _systems_folded(turns), (LATE,)
    if late and texts != turns:
        yield _systems_folded(texts), (AS_TEXT, LATE)


def probe(turns: Sequence[Turn]) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """The same turns with words of our own in what a template may leave out, and those words."""
    words: list[str] = []

    def word() -> str:
        words.append(f"zq{len(words)}qz")
        return words[-1]

    probing = []
    for turn in turns:
        if turn.role in ("system", "tool"):
            turn = replace(turn, content=word())
        if calls := turn.extra.get("tool_calls"):
            functions = [{"name": word(), "arguments": {word(): word()}} for _ in calls]
            named = [{**call, "function": function} for call, function in zip(calls, functions, strict=True)]
            turn = replace(turn, extra={**turn.extra, "tool_calls": named})
        probing.append(turn)
    return tuple(probing), tuple(words)


def _tools_as_text(turns: Sequence[Turn]) -> Iterator[Turn]:
    """Calls as JSON after the assistant's words, and results in the user's next message, or as one."""
    results: list[str] = []
    for turn in turns:
        if turn.role == "tool":
            results.append(f"Tool result:\n{turn.content}")
            continue
        if results:
            if turn.role == "user":
                turn = replace(turn, content="\n\n".join((*results, turn.content)))
            else:
                yield Turn("user", "\n\n".join(results))
            results = []
        extra = dict(turn.extra)
        if calls := extra.pop("tool_calls", None):
            lines = [json.dumps(call["function"], ensure_ascii=False) for call in calls]
            turn = Turn(turn.role, "\n".join(filter(None, (turn.content, *lines))), extra)
        yield turn
    if results:
        yield Turn("user", "\n\n".join(results))


def _systems_folded(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """System texts in front of the next user message; after the last one behind it."""
    folded: list[Turn] = []
    texts: list[str] = []
    for turn in turns:
        if turn.role == "system":
            texts.append(turn.content)
            continue
        if turn.role == "user":
            turn = replace(turn, content="\n\n".join((*texts, turn.content)))
            texts = []
        folded.append(turn)
    last = last_user(folded)
    folded[last] = replace(folded[last], content="\n\n".join((folded[last].content, *texts)))
    return tuple(folded)


@dataclass(frozen=True)
class Addition:
    """What one stream reads besides the conversation: a text, its control tokens hidden, by a setting. `movable`
    tells whether the setting `contrast_placement` decides where it stands."""

    text: str
    setting: str
    placement: Placement
    movable: bool = True


class _Unfit(Exception):
    """The template does something else with an addition, {} in `fault`, than it should."""

    def __init__(self, fault: str, addition: Addition) -> None:
        super().__init__(f"The chat template {fault.replace('{}', spoken(addition.setting), 1)}")
        self.addition = addition


def render_streams(
    tokenizer: Any,
    source: str,
    said: Said,
    additions: Sequence[Addition],
    thinking: bool,
    variables: Mapping[str, Any],
) -> tuple[str, list[str], tuple[str, ...]]:
    """The prompt of the conversation alone, those with each addition, and warnings, one sentence each; `variables`
    is what the template gets besides, its control tokens hidden. PromptError where the template cannot render them;
    ModelError where it is not valid Jinja."""
    switches = {**thinking_switches(source, thinking), **variables}
    try:
        said, dialect, warnings = _fit(tokenizer, source, said, switches)
    except PromptError:
        if not switches.pop("tools", None):
            raise
        said, dialect, warnings = _fit(tokenizer, source, said, switches)

    def attempt(additions: Sequence[Addition]) -> tuple[list[Rendered], bool]:
        try:
            return _render_checked(tokenizer, source, dialect, said, additions, folded=False), False
        except (_Unfit, PromptError):
            return _render_checked(tokenizer, source, dialect, said, additions, folded=True), True

    def takes(addition: Addition) -> bool:
        with suppress(_Unfit, PromptError):
            attempt([addition])
            return True
        return False

    try:
        (bare, *others), folded = attempt(additions)
    except _Unfit as unfit:
        failed = unfit.addition
        if not failed.movable:
            raise PromptError(f"{unfit}.", _OTHER_MODEL) from unfit
        possible = [name for name, each in PLACEMENTS.items() if takes(replace(failed, placement=each))]
        raise placement_error(str(unfit), failed.placement, possible) from unfit
    if not _shows_tools(bare.text, variables.get("tools", ())):
        warnings = (*warnings, NO_TOOLS)
    if folded and said.system:
        warnings = (FOLDED, *warnings)
    return bare.text, [other.text for other in others], warnings


def placement_error(problem: str, placement: Placement, possible: Sequence[str]) -> PromptError:
    """The error of a placement that cannot be had, with the names of those that can."""
    names = " or ".join(possible)
    return PromptError(
        f"{problem} (contrast placement {placement.name}).",
        f"Use {SETTINGS['contrast_placement'].flag} {names}." if names else _OTHER_MODEL,
    )


def _shows_tools(text: str, tools: Sequence[Any]) -> bool:
    names = [str(tool.get("function", {}).get("name", "")) for tool in tools]
    return not names or any(name in text for name in names)


def _fit(
    tokenizer: Any, source: str, said: Said, switches: Mapping[str, Any]
) -> tuple[Said, Dialect, tuple[str, ...]]:
    """The conversation in the first layout that the template takes, how to call it, and warnings."""
    *others, (simplest, last) = layouts(said.turns)
    for turns, warnings in others:
        with suppress(PromptError):
            laid_out = replace(said, turns=turns)
            return laid_out, _find_dialect(tokenizer, source, laid_out, switches), warnings
    said = replace(said, turns=simplest)
    return said, _find_dialect(tokenizer, source, said, switches), last


def _find_dialect(tokenizer: Any, source: str, said: Said, switches: Mapping[str, Any]) -> Dialect:
    """How to call the template: the first way in which the turns alone show the last user message, and all that
    not every template shows."""
    ways = dialects(tokenizer, switches)
    probing, words = probe(said.turns)
    refusals = []
    for dialect in ways:
        try:
            if Rendered(render(tokenizer, source, said.turns, dialect)).holds(said.question):
                shown = render(tokenizer, source, probing, dialect) if words else ""
                if all(word in shown for word in words):
                    return dialect
        except TemplateRefusal as refusal:
            refusals.append(refusal)
    if len(refusals) < len(ways):
        raise PromptError("The chat template leaves the user's message out of the prompt.", _OTHER_MODEL)
    raise _refused(refusals[0]) from refusals[0]


def _refused(refusal: TemplateRefusal) -> PromptError:
    return PromptError(
        f"The chat template refuses the conversation: {refusal}.",
        "Many templates want user and assistant in turn, the user first: start a new conversation; or use a "
        "model with another chat template.",
    )


def _render_checked(
    tokenizer: Any, source: str, dialect: Dialect, said: Said, additions: Sequence[Addition], *, folded: bool
) -> list[Rendered]:
    """The prompt of the conversation alone, and those with each of the additions, all as they should be. A
    PromptError is about the conversation alone; an _Unfit about one of the additions."""
    layouts = [said, *(each.placement.place(said, each.text) for each in additions)]

    def render_one(number: int) -> str:
        try:
            return render(tokenizer, source, layouts[number].messages(folded=folded), dialect)
        except TemplateRefusal as refusal:
            if number == 0:
                raise _refused(refusal) from refusal
            fault = f"refuses the conversation with the {{}}: {refusal}"
            raise _Unfit(fault, additions[number - 1]) from refusal

    texts = [render_one(number) for number in range(len(layouts))]
    # A date or a time that the template writes must be the same in all of them.
    for _ in range(_MOMENTS if "strftime_now" in source else 0):
        if render_one(0) == texts[0]:
            break
        texts = [render_one(number) for number in range(len(layouts))]
    bare, *others = map(Rendered, texts)
    fault = said.find_fault(bare)
    if fault is not None:
        raise PromptError(f"The chat template {fault}.", _OTHER_MODEL)
    for other, each in zip(others, additions, strict=True):
        fault = each.placement.find_fault(bare, other, said, each.text)
        if fault is not None:
            raise _Unfit(fault, each)
    return [bare, *others]
