"""The answer as it comes, as text or as JSON Lines: on `out` the answer and nothing else, on `err` thinking, legend
and statistics. On a terminal the tokens of the contrast window are coloured by decision."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, TextIO

from adacd_cli.counting import counted
from adacd_cli.events import Decision, Event, Finished, FinishReason, Started, TokenStep, to_json
from adacd_cli.render.screen import DECISION_STYLES, DIM, Screen, View

count = partial(counted, noun="token")
_UNSAFE = re.compile("[\ud800-\udfff\x7f-\x9f]")


def stream_answer(
    events: Iterable[Event], out: TextIO, err: TextIO, view: View, *, legend: bool = True
) -> Finished:
    """Writes one request's answer as it is decoded, from its Started, TokenStep* and Finished, ending with exactly
    one newline, and gives the Finished; `legend`: whether to explain the colours where there are any."""
    answer, notes = Screen(out, view.display), Screen(err, view.display)
    writer = _Writer(answer, None if view.quiet else notes)
    started, finished = None, None
    with answer.closed_on_error(writer.break_off):
        for event in events:
            if isinstance(event, Started):
                started = event
            elif isinstance(event, TokenStep):
                writer.put(event)
            elif isinstance(event, Finished):
                finished = event
    assert started is not None and finished is not None, "every request has Started and Finished"
    writer.end_thinking()
    answer.put("\n")
    if not view.quiet and view.display != "none":
        if legend and answer.styled and finished.added + finished.subtracted:
            put_legend(notes)
        if view.stats:
            repeat = "" if started.seed is None else f" · seed {started.seed}"
            notes.put_line((statistics(started, finished) + repeat, DIM))
        elif finished.context_full:
            notes.put_line((f"The answer {_ending(started, finished)}.", DIM))
    return finished


def put_legend(screen: Screen) -> None:
    screen.put_line(
        ("+ added", DECISION_STYLES[Decision.ADD]),
        (" (towards the prompted stream)  ", DIM),
        ("− subtracted", DECISION_STYLES[Decision.SUBTRACT]),
        (" (away from it)  · plain", DIM),
    )


def statistics(started: Started, finished: Finished) -> str:
    """One line: tokens, decisions where there are any, speed, and why the answer ended."""
    parts = [count(finished.tokens)]
    if finished.added + finished.subtracted:
        parts += [f"{finished.added} added", f"{finished.subtracted} subtracted"]
    if finished.tokens:
        parts.append(f"{finished.tokens_per_s:.1f} tokens/s")
    return " · ".join([*parts, _ending(started, finished)])


def ended(started: Started) -> str:
    """How an answer that was not cut off ended: with --stop one of those texts may have."""
    return "ended" if started.settings.get("stop") else "ended by itself"


def _ending(started: Started, finished: Finished) -> str:
    place = "the context's end" if finished.context_full else "max_new_tokens"
    return {
        FinishReason.CANCELLED: "cancelled",
        FinishReason.STOP: ended(started),
        FinishReason.LENGTH: f"stopped at {place}",
    }[finished.finish_reason]


class _Writer:
    """Writes the answer without the newlines at its end, and before it the thinking, dimmed, on `notes`."""

    def __init__(self, answer: Screen, notes: Screen | None) -> None:
        self._answer, self._notes = answer, notes
        self._newlines = self._thought = ""
        self._begun = False

    def put(self, step: TokenStep) -> None:
        if step.thinking:
            if self._notes and step.text:
                self._notes.put(step.text, DIM)
                self._thought = step.text
            return
        self.end_thinking()
        text = self._newlines + step.text
        body = text.rstrip("\n")
        self._newlines = text[len(body) :]
        if body:
            self._answer.put(body, DECISION_STYLES[step.decision])
            self._begun = True

    def end_thinking(self) -> None:
        if self._notes and self._thought and not self._thought.endswith("\n"):
            self._notes.put("\n")
        self._thought = ""

    def break_off(self) -> None:
        self.end_thinking()
        if self._answer.is_terminal and self._begun:
            self._answer.put("\n")


def write_events(events: Iterable[Event], out: TextIO) -> None:
    """Writes each event as it comes; ValueError where a number is NaN or infinite, which JSON cannot say."""
    for event in events:
        out.write(json_line(to_json(event), out, allow_nan=False) + "\n")
        out.flush()


def json_line(value: Any, out: TextIO, *, allow_nan: bool = True) -> str:
    """The value as one line of JSON; what the encoding of `out` cannot carry is escaped."""
    try:
        is_unicode = codecs.lookup(getattr(out, "encoding", None) or "utf-8").name.startswith("utf")
    except LookupError:
        is_unicode = False
    return escaped(json.dumps(value, ensure_ascii=not is_unicode, allow_nan=allow_nan))


def escaped(json_text: str) -> str:
    """The same JSON; lone surrogates, which UTF-8 cannot carry, and terminal controls become \\uXXXX."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text)
