"""The trace as Markdown: a table whose cells are code spans, the answer in a fence, the summary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TextIO

from adacd_cli.counting import counted
from adacd_cli.events import Candidate, Event, Finished, Started, TokenStep
from adacd_cli.render.reasons import Trace, confidence_test, summary, threshold_of
from adacd_cli.render.safe import label
from adacd_cli.render.screen import Screen
from adacd_cli.render.text import statistics
from adacd_cli.render.trace import describe_run, probability
from adacd_cli.render.view import View, is_condensed

_HEADER = (
    "| step | token | Default | prompted | rank | agr | c | c\\* | c ≥ λ×c\\* | decision |\n"
    "|---:|---|---|---|---:|---:|---:|---:|---|---|"
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def write_markdown(events: Iterable[Event], out: TextIO, view: View) -> Finished:
    """Writes one request's trace; rows come as they are decoded.

    Returns:
        the Finished event.
    """
    screen = Screen(out, "none")
    started: Started | None = None
    steps: list[TokenStep] = []
    for event in events:
        if isinstance(event, Started):
            started = event
            heading = f"# Trace\n\n{_escaped(describe_run(started))}\n\n## Prompt\n\n{_fenced(view.prompt)}"
            screen.put(f"{heading}\n\n## Tokens\n\n{_HEADER}\n")
        elif isinstance(event, TokenStep):
            assert started is not None, "Started comes first"
            steps.append(event)
            if view.every or not is_condensed(event):
                screen.put(_row(event, threshold_of(started)) + "\n")
        else:
            assert started is not None, "Started comes first"
            screen.put(_ending(Trace(started, tuple(steps), event), view))
            return event
    raise AssertionError("every request ends with Finished")


def _row(step: TokenStep, threshold: float) -> str:
    measures = step.measures
    cells = [
        str(step.index),
        _code(step.token),
        _code(step.plain_token),
        "" if step.prompted_top is None else _code(step.prompted_top),
        "" if measures.prompted_top_rank is None else str(measures.prompted_top_rank),
        "" if measures.agreement is None else f"{measures.agreement:.2f}",
        f"{measures.confidence:.2f}",
        "" if measures.prompted_confidence is None else f"{measures.prompted_confidence:.2f}",
        confidence_test(step, threshold).replace("<", "&lt;"),
        f"{step.decision.mark} {step.decision.value}",
    ]
    return "\n".join([f"| {' | '.join(cells)} |", *map(_candidate_row, step.candidates)])


def _candidate_row(candidate: Candidate) -> str:
    score = "masked" if candidate.score is None else f"score {candidate.score:.2f}"
    numbers = probability(candidate.unprompted_logprob), probability(candidate.prompted_logprob)
    return f"| | ↳ {_code(candidate.text)} | | | | | {numbers[0]} | {numbers[1]} | {score} | |"


def _ending(trace: Trace, view: View) -> str:
    hidden = 0 if view.every else sum(is_condensed(step) for step in trace.steps)
    have = "has" if hidden == 1 else "have"
    left_out = f"\n{counted(hidden, 'token')} without a contrast {have} no row.\n" if hidden else ""
    thinking = f"\n## Thinking\n\n{_fenced(trace.finished.thinking)}\n" if trace.finished.thinking else ""
    paragraphs = "\n\n".join(_escaped(paragraph) for paragraph in summary(trace))
    numbers = f"\n{_escaped(statistics(trace.started, trace.finished))}\n" if view.stats else ""
    return (
        f"{left_out}{thinking}\n## Answer\n\n{_fenced(trace.finished.text)}\n\n"
        f"## What happened\n\n{paragraphs}\n{numbers}"
    )


def _code(token: str) -> str:
    """A token as a code span in a table cell; a backslash keeps `|` from ending the cell, also in code."""
    text = label(token)
    fence = "`" * (1 + _longest_run(text))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}".replace("|", "\\|")


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + _longest_run(text))
    body = text.rstrip("\n")
    return f"{fence}text\n{body}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)
