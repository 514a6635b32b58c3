"""The trace as a table that grows while the model decodes, and as one HTML page to hover, click and step through.
Column widths are fixed with the table's header, so nothing is drawn twice; only the one line that counts a run of
plain tokens is written over, and only on a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich.style import Style

from adacd_cli.config.methods import COLUMNS, Method, method_of
from adacd_cli.counting import counted
from adacd_cli.events import Candidate, Event, Finished, Started, TokenStep
from adacd_cli.render.document import as_html, as_json, document
from adacd_cli.render.reasons import Trace, collect, confidence_test, reason, summary, threshold_of
from adacd_cli.render.screen import BOLD, DIM, PLAIN, Screen, View, decision_cell, fit, label, printable
from adacd_cli.render.switch import EXPLANATIONS, others, reading
from adacd_cli.render.text import statistics

_WIDEST_TOKEN, _WIDEST_PROSE = 20, 100
# columns of a row that are not tokens: fields of 4, 4, 4, 4, 4, 15 and 10, and nine spaces between ten
_NUMBERS = 54


def write_table(events: Iterable[Event], out: TextIO, view: View) -> None:
    """Writes one request's trace as it is decoded, from its Started, TokenStep* and Finished."""
    screen = Screen(out, view.display, view.width)
    run = iter(events)
    started = next(run)
    assert isinstance(started, Started), "Started comes first"
    put_heading(screen, started, view)
    table = StepTable(screen, threshold_of(started), view.every)
    steps: list[TokenStep] = []
    with screen.closed_on_error(table.close):
        for event in run:
            if isinstance(event, TokenStep):
                steps.append(event)
                table.put(event)
            elif isinstance(event, Finished):
                table.close()
                _put_ending(screen, Trace(started, tuple(steps), event), view)


def describe_run(started: Started) -> str:
    settings = started.settings
    model = started.model if started.revision is None else f"{started.model}@{started.revision}"
    engine = {"llamacpp": " on llama.cpp", "torch": " on PyTorch"}.get(started.engine, "")
    parts = [model + (engine if started.model.endswith(".gguf") else ""), started.method]
    parts += [f"profile {started.profile}"] if started.profile else []
    for name, symbol in method_of(started.method).symbols:
        if name == "agreement_threshold" and threshold_of(started) is None:
            parts.append(f"{settings.get('switch')} switch")
        elif name in settings:
            parts.append(f"{symbol} {settings[name]:g}")
    temperature = settings.get("temperature", 0)
    parts.append(f"temperature {temperature:g}, seed {started.seed}" if temperature else "greedy")
    return " · ".join(parts)


def put_heading(screen: Screen, started: Started, view: View) -> None:
    """The question and how it was run; unless quiet, also what the columns mean."""
    screen.put_line(("Prompt  ", DIM), view.prompt)
    screen.put_line(("Run     ", DIM), describe_run(started))
    method = method_of(started.method)
    if len(method.streams) > 1 and not view.quiet:
        screen.put_line()
        switch = EXPLANATIONS.get(started.settings.get("switch", "")) if method.switched else None
        explanation = f"{COLUMNS} {switch}" if switch else method.explanation
        put_prose(screen, f"{_streams(method, started)} {explanation}", DIM)
    screen.put_line()


def _streams(method: Method, started: Started) -> str:
    if method.resource == "draft":
        return f"The plain stream is the model; the second stream is {started.settings.get('draft')}."
    if method.resource and started.settings.get(method.resource) is not None:
        return "The plain stream is the model; the second stream is the model with the expert's adapter."
    others = method.streams[1:]
    texts = [started.settings.get(stream.prompt, "") for stream in others]
    names = ["prompted"] if len(others) == 1 else [stream.name for stream in others]
    reads = [f"the {name} stream also reads “{text}”" for name, text in zip(names, texts, strict=True)]
    return f"The plain stream reads your prompt; {'; '.join(reads)}"


def _put_ending(screen: Screen, trace: Trace, view: View) -> None:
    screen.put_line()
    if trace.finished.thinking:
        screen.put_line(("Thinking", BOLD))
        screen.put_line((trace.finished.thinking.strip("\n"), DIM))
        screen.put_line()
    screen.put_line(("Answer", BOLD))
    screen.put_line(trace.finished.text.rstrip("\n"))
    screen.put_line()
    screen.put_line(("What happened", BOLD))
    for paragraph in summary(trace):
        put_prose(screen, paragraph, bullet="• ")
    if view.stats:
        screen.put_line((statistics(trace.started, trace.finished), DIM))


def put_prose(screen: Screen, paragraph: str, style: Style = PLAIN, bullet: str = "") -> None:
    """A paragraph wrapped to the screen, and to a width that reads well."""
    width = min(screen.width, _WIDEST_PROSE) - len(bullet)
    for line in textwrap.wrap(paragraph, width, break_on_hyphens=False):
        line, bullet = bullet + line, " " * len(bullet)
        screen.put_line((line, style))


class StepTable:
    """Rows of fixed column widths; thinking and the plain tokens after the contrast window, which have no numbers
    to show, become one line unless `every`. The threshold is λ, in [0, 1]; None where it decides nothing."""

    def __init__(self, screen: Screen, threshold: float | None, every: bool) -> None:
        self._screen, self._threshold, self._every = screen, threshold, every
        self._run: list[TokenStep] = []
        self._named: list[str] | None = None

    def put(self, step: TokenStep) -> None:
        """A row, after the header where it is the first, or one more in a run of plain tokens."""
        condensed = step.measures.prompted_top_rank is None and not step.measures.named
        if condensed and not self._every:
            if self._run and self._run[0].thinking is not step.thinking:
                self.close()
            self._run.append(step)
            self._screen.redraw(self._run_line())
            return
        self.close()
        if self._named is None or not {*others(step.measures.named)} <= {*self._named}:
            self._put_header(step)
        self._put_step(step)
        if (seen := reading(step)) is not None:
            self._screen.put_line((f"     {seen.drawn()}  {seen.numbers}", DIM))
        for candidate in step.candidates:
            chosen = candidate.token_id == step.token_id
            score = "masked" if candidate.score is None else f"score {candidate.score:.2f}"
            pointer, name = ">" if chosen else " ", fit(label(candidate.text), _WIDEST_TOKEN)
            plain, prompted = map(probability, (candidate.unprompted_logprob, candidate.prompted_logprob))
            line = f"   {pointer} {name}  P {plain:<7}  P* {prompted:<7}  {score}"
            self._screen.put_line((line, PLAIN if chosen else DIM))

    def close(self) -> None:
        if self._run:
            line = self._run_line()
            self._screen.redraw(line)
            self._screen.put_line() if self._screen.can_redraw else self._screen.put_line((line, DIM))
            self._run = []

    def _run_line(self) -> str:
        number = counted(len(self._run), f"{'thinking' if self._run[0].thinking else 'plain'} token")
        text = label("".join(step.text for step in self._run[: self._screen.width])).replace("␣", " ")
        return fit(f"   … {number}: {text}", self._screen.width - 1).rstrip()

    def _put_header(self, step: TokenStep) -> None:
        """The header, again where a step brings a measure that had no column yet."""
        self._named = [*dict.fromkeys([*(self._named or []), *others(step.measures.named)])]
        tests = self._threshold is not None and (not self._named or step.measures.agreement is not None)
        named = [(max(len(name), 6), True) for name in self._named]
        room = self._screen.width - _NUMBERS - sum(width + 1 for width, _ in named) + (0 if tests else 16)
        tokens = [(min((max(room, 3 * 5) + spare) // 3, _WIDEST_TOKEN), False) for spare in (2, 1, 0)]
        self._fields = [(4, True), *tokens, *[(4, True)] * 4, *named, *[(15, False)] * tests]
        names = ("step", "token", "Default", "prompted", "rank", "agr", "c", "c*", *self._named, "c ≥ λ×c*")
        self._screen.put_line(*((cell, BOLD) for cell in self._row(names, "decision")))

    def _put_step(self, step: TokenStep) -> None:
        measures, test = step.measures, confidence_test(step, self._threshold)
        rank = measures.prompted_top_rank
        decision, style = decision_cell(step)
        numbers = measures.agreement, measures.confidence, measures.prompted_confidence
        named = (measures.named.get(name) for name in self._named or ())
        texts = (
            str(step.index),
            label(step.token),
            label(step.plain_token),
            "" if step.prompted_top is None else label(step.prompted_top),
            "" if rank is None else str(rank) if rank < 10_000 else f"{rank // 1000}k",
            *("" if number is None else f"{number:.2f}" for number in numbers),
            *("" if number is None else f"{number:.3g}" for number in named),
            test if len(test) <= 15 else test.replace(" ", ""),
        )
        cells, changed = self._row(texts, decision), step.token_id != step.plain_token_id
        styles = [DIM, style + BOLD if changed else style, PLAIN if changed else DIM]
        styles += [PLAIN] * (len(cells) - len(styles) - 1) + [style]
        self._screen.put_line(*zip(cells, styles, strict=True))

    def _row(self, texts: Sequence[str], decision: str) -> list[str]:
        fields = zip(texts, self._fields, strict=False)  # without the test where there is no column for it
        return [*(fit(text, width, right=right) + " " for text, (width, right) in fields), decision]


def probability(logprob: float | None) -> str:
    """A log-probability in nats as a probability: `0.662`, `2e-07` where it is tiny, `–` without one."""
    if logprob is None:
        return "–"
    value = math.exp(logprob)
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def write_html(events: Iterable[Event], out: TextIO, view: View) -> None:
    out.write(page(collect(events), view))
    out.flush()


def page(trace: Trace, view: View) -> str:
    started = trace.started
    settings = {
        "model": started.model,
        "revision": started.revision,
        "method": started.method,
        "profile": started.profile,
        "prompted tokens": started.prompted_tokens,
        "unprompted tokens": started.unprompted_tokens,
        **started.settings,
        "drawn seed": started.seed,
    }
    data = {
        "threshold": trace.threshold,
        "turn": None if trace.turn is None else trace.steps.index(trace.turn),
        "steps": [_step(step, trace.threshold) for step in trace.steps],
    }
    parts = {
        "title": as_html(f"adacd: {' '.join(view.prompt.split())[:80]}"),
        "run": as_html(describe_run(started)),
        "prompt": as_html(view.prompt),
        "answer": as_html(trace.finished.text),
        "thinking": as_html(trace.finished.thinking),
        "thinking_hidden": "" if trace.finished.thinking else "hidden",
        "summary": "\n".join(f"<p>{as_html(paragraph)}</p>" for paragraph in summary(trace)),
        "statistics": as_html(statistics(started, trace.finished)) if view.stats else "",
        "settings": "".join(
            f"<tr><th>{as_html(name)}</th><td>{as_html(str(value))}</td></tr>"
            for name, value in settings.items()
        ),
        "data": as_json(data),
    }
    return document("adacd_cli.render", "trace", parts)


def _step(step: TokenStep, threshold: float | None) -> dict[str, Any]:
    measures, seen = step.measures, reading(step)
    return {
        "index": step.index,
        "text": printable(step.text),
        "label": label(step.token),
        "decision": step.decision.value,
        "mark": step.decision.mark,
        "thinking": step.thinking,
        "changed": step.token_id != step.plain_token_id,
        "plain": label(step.plain_token),
        "top": None if step.prompted_top is None else label(step.prompted_top),
        "rank": measures.prompted_top_rank,
        "agreement": measures.agreement,
        "confidence": measures.confidence,
        "prompted": measures.prompted_confidence,
        "plausible": measures.plausible_count,
        "named": others(measures.named),
        "switch": seen and {"numbers": seen.numbers, "scale": seen.scale},
        "test": confidence_test(step, threshold),
        "reason": reason(step, threshold),
        "candidates": [_candidate(candidate, step.token_id) for candidate in step.candidates],
    }


def _candidate(candidate: Candidate, chosen_id: int) -> dict[str, Any]:
    prompted = candidate.prompted_logprob
    return {
        "label": label(candidate.text),
        "unprompted": math.exp(candidate.unprompted_logprob),
        "prompted": None if prompted is None else math.exp(prompted),
        "score": candidate.score,
        "kept": candidate.kept,
        "chosen": candidate.token_id == chosen_id,
    }
