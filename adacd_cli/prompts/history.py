"""Turns that a chat template may not take as they are: tool calls, their results, and system messages later on.

Whether a template shows them is tried with words of our own in their place; else they stand in the messages
around them as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adacd_cli.prompts.templates import Turn

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


def last_user(turns: Sequence[Turn]) -> int:
    """The place of the last user message, which is there."""
    return max(place for place, turn in enumerate(turns) if turn.role == "user")


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from strings_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from strings_in(each)
