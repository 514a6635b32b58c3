"""Default and another method side by side: both answers, the first token where they part, and why. Two columns on a
terminal of 80 columns or more, one below the other elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from adacd_cli.events import Event, FinishReason, Started, TokenStep
from adacd_cli.render.reasons import Trace, collect, reason
from adacd_cli.render.screen import BOLD, DECISION_STYLES, DIM, PLAIN, Screen, View, label, printable, spoken
from adacd_cli.render.text import put_legend, statistics
from adacd_cli.render.trace import StepTable, put_heading, put_prose

_SIDE_BY_SIDE = 80
_RULE = " │ "

Piece = tuple[str, Style]


def write_comparison(
    default: Iterable[Event], method: Iterable[Event], out: TextIO, err: TextIO, view: View
) -> tuple[Trace, Trace]:
    """Reads the events of both runs, one after the other, then writes the comparison; gives both traces."""
    progress = Screen(err, view.display)
    quiet = view.quiet or view.display == "none"
    first, second = (collect(run if quiet else _counted(run, progress)) for run in (default, method))
    screen = Screen(out, view.display, view.width)
    put_heading(screen, second.started, View(view.prompt, quiet=True))
    parting = find_parting(first, second)
    answers = [(trace.started.method, pieces(trace, parting)) for trace in (first, second)]
    if screen.is_terminal and screen.width >= _SIDE_BY_SIDE:
        width = (screen.width - len(_RULE)) // 2
        columns = [[[(name, BOLD)], *_wrapped(answer, width)] for name, answer in answers]
        for one, other in zip_longest(*columns, fillvalue=[]):
            padding = " " * (width - sum(cell_len(text) for text, _ in one))
            screen.put_line(*one, padding, (_RULE, DIM), *other)
        screen.put_line()
    else:
        for name, answer in answers:
            screen.put_line((name, BOLD))
            for index, (text, style) in enumerate(answer):
                screen.put(text.rstrip("\n") if index == len(answer) - 1 else text, style)
            screen.put_line()
            screen.put_line()
    _put_parting(screen, first, second, parting)
    screen.put_line()
    if screen.styled and second.finished.added + second.finished.subtracted:
        put_legend(screen)
    width = max(len(trace.started.method) for trace in (first, second))
    for trace in (first, second) if view.stats else ():
        line = f"{trace.started.method:<{width}}  {statistics(trace.started, trace.finished)}"
        put_prose(screen, line, DIM)
    return first, second


def find_parting(first: Trace, second: Trace) -> int | None:
    """The index of the first step where the two took different tokens; None when neither did."""
    pairs = zip_longest(*([step.token_id for step in trace.steps] for trace in (first, second)))
    return next((index for index, (one, other) in enumerate(pairs) if one != other), None)


def pieces(trace: Trace, parting: int | None) -> list[Piece]:
    """An answer in pieces of text and style, the token at `parting` in ⟦brackets⟧."""
    found: list[Piece] = []
    for step in trace.steps:
        style = DECISION_STYLES[step.decision]
        if step.index == parting:
            text = step.text or label(step.token)
            # the space before a word stays outside, and a token of white space alone is named
            before, word, after = re.fullmatch(r"(?s)([ \n]*)(.*?)(\n*)", text).groups()  # type: ignore[union-attr]
            if not word:
                before, word, after = "", label(text), ""
            found += [(before, PLAIN), (f"⟦{word}⟧", style + BOLD), (after, PLAIN)]
        elif step.text and not step.thinking:
            found.append((step.text, style))
    return found


def _counted(events: Iterable[Event], progress: Screen) -> Iterator[Event]:
    method = ""
    try:
        for event in events:
            if isinstance(event, Started):
                method = event.method
            elif isinstance(event, TokenStep):
                progress.redraw(f"{method}: token {event.index + 1}")
            yield event
    finally:
        progress.erase()


def _wrapped(answer: Sequence[Piece], width: int) -> list[list[Piece]]:
    text = Text()
    for piece, style in answer:
        text.append(printable(piece), style)
    text.rstrip()
    console = Console(file=io.StringIO(), width=width)
    rendered = [line.render(console) for line in text.wrap(console, width, tab_size=4)]
    return [[(part.text, part.style or PLAIN) for part in line if part.text] for line in rendered]


def _put_parting(screen: Screen, first: Trace, second: Trace, parting: int | None) -> None:
    decided, shorter = second.decided, min(first, second, key=lambda trace: len(trace.steps))
    why = f" {reason(decided, second.threshold)}" if decided is not None and decided.index != parting else ""
    if parting is None:
        put_prose(screen, f"Both answers are the same, token for token.{why}")
        return
    if parting >= len(shorter.steps):
        what = "was stopped" if shorter.finished.finish_reason is FinishReason.CANCELLED else "ended"
        put_prose(screen, f"The answers are the same up to step {parting}, where one of them {what}.{why}")
        return
    one, other = first.steps[parting], second.steps[parting]
    taken = f"{first.started.method} takes {spoken(one.token)}, {second.started.method} {spoken(other.token)}"
    put_prose(screen, f"They part at step {parting}: {taken}. {reason(other, second.threshold)}{why}")
    screen.put_line()
    StepTable(screen, second.threshold, every=True).put(other)
