"""THE loop: requests in, events out.

Prefill, then one step after another: the method's rule for the rows in their contrast window, plain decoding
for the others; finished rows leave both streams at once, and a prompted cache is let go as soon as no row
needs it. What is done with the events is for others: every command stands on this iterator.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adacd_cli.config.methods import METHODS, Method, spoken
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.row import Phase, Request, Row
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.base import Rule
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.speculate import run_with_draft
from adacd_cli.engine.step import RowOutcome, take_step
from adacd_cli.engine.stream import Stream, StreamPair
from adacd_cli.errors import PromptError
from adacd_cli.events import Event
from adacd_cli.prompts.pair import PromptPair

if TYPE_CHECKING:
    from adacd_cli.config import Settings


@dataclass
class _Window:
    """The rows that entered the contrast window at the same step, and their prompted stream."""

    stream: Stream
    rows: list[Row]
    logits: torch.Tensor


def _never(request: int) -> bool:
    return False


def decode(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: Settings,
    *,
    candidates: int = 0,
    streams: StreamPair | None = None,
    cancelled: Callable[[int], bool] = _never,
) -> Iterator[Event]:
    """Decodes a batch of requests.

    Args:
        model: the model, ready to decode.
        requests: one or more; their prompts may differ in length.
        settings: the method and its numbers, lengths, sampling and stop strings, for all of them.
        candidates: how many of the most probable tokens each step reports; 0 for none.
        streams: for a single request, streams whose caches are reused and kept.
        cancelled: asked before each step with a request's index; True ends it as CANCELLED.

    Yields:
        Started of every request, their TokenSteps as they come, and Finished of each as it ends.

    Raises:
        ModelError: what the method needs besides the model is not loaded; `loading.equip` does that.
        PromptError: a prompt leaves no room in the model's context.
        LogitsError: a step's logits are NaN or infinite.
        KeyboardInterrupt: during a forward, after Finished (CANCELLED) of whatever was not finished.
    """
    method = METHODS[settings.effective_method]
    second = method.second_stream(settings)
    model.first(method, settings)  # what is not loaded is said before anything is decoded
    if second is not None:
        model.second(second, settings)
    check_room(model, [request.pair for request in requests], settings)
    rows = [
        Row(index, request, model, method, settings, _seed_of(request, settings))
        for index, request in enumerate(requests)
    ]
    for row in rows:
        yield row.started()
    for row in rows:
        if row.finish is not None:
            yield row.finished()
    rows = [row for row in rows if row.finish is None]
    if not rows:
        return
    try:
        run = run_with_draft if method.resource == "draft" else _run
        yield from run(model, method, rows, settings, candidates, streams, cancelled)
    except KeyboardInterrupt:
        # a consumer sees every request end, also when a forward was interrupted
        for row in rows:
            if not row.closed:
                yield row.finished()
        raise


def _run(
    model: LanguageModel,
    method: Method,
    rows: list[Row],
    settings: Settings,
    candidates: int,
    streams: StreamPair | None,
    cancelled: Callable[[int], bool],
) -> Iterator[Event]:
    rule = rule_of(method)
    unprompted = streams.unprompted if streams else Stream(model.first(method, settings))
    windows: list[_Window] = []
    logits = unprompted.prefill([row.pair.unprompted_ids for row in rows])
    while True:
        gone = [row for row in rows if cancelled(row.index)]
        for row in gone:
            yield row.finished()
        if gone:
            live = [place for place, row in enumerate(rows) if row not in gone]
            rows, logits = [rows[place] for place in live], logits[live]
            unprompted.keep(live)
            windows = _narrow(windows, rows, streams)
        if not rows:
            return

        noise = _noise(rows, logits)
        _settle(rows, logits, settings, noise)
        windows += _open_window(model, method, rows, windows, settings, streams)
        outcomes = _step(rule, rows, windows, logits, settings, noise, candidates)
        for row, outcome in zip(rows, outcomes, strict=True):
            if not outcome.finite:
                raise row.not_finite()
            yield row.take(outcome)
            if row.finish is not None:
                yield row.finished()

        live = [place for place, row in enumerate(rows) if row.finish is None]
        rows = [rows[place] for place in live]
        windows = _narrow(windows, rows, streams)
        if not rows:
            return
        unprompted.keep(live)
        logits = unprompted.advance([row.ids[-1] for row in rows])
        for window in windows:
            window.logits = window.stream.advance([row.ids[-1] for row in window.rows])


def _step(
    rule: Rule,
    rows: list[Row],
    windows: list[_Window],
    logits: torch.Tensor,
    settings: Settings,
    noise: torch.Tensor | None,
    candidates: int,
) -> list[RowOutcome]:
    """One step over all rows, those in a window contrasted."""
    places = {id(row): place for place, row in enumerate(rows)}
    contrasted = [places[id(row)] for window in windows for row in window.rows]
    prompted: torch.Tensor | None = None
    if len(windows) == 1:
        prompted = windows[0].logits
    elif windows:
        order = sorted(range(len(contrasted)), key=contrasted.__getitem__)
        prompted = torch.cat([window.logits for window in windows])[order]
        contrasted.sort()
    return take_step(rule, logits, prompted, contrasted, settings, noise, candidates)


def _open_window(
    model: LanguageModel,
    method: Method,
    rows: list[Row],
    windows: list[_Window],
    settings: Settings,
    streams: StreamPair | None,
) -> list[_Window]:
    """A window for the rows whose answer begins now: the prompted stream catches up in one forward."""
    inside = {id(row) for window in windows for row in window.rows}
    newcomers = [row for row in rows if row.wants_contrast and id(row) not in inside]
    if not newcomers:
        return []
    second = method.second_stream(settings)
    assert second is not None, "a row wants no contrast where there is no second stream"
    stream = streams.prompted if streams else Stream(model.second(second, settings))
    logits = stream.prefill([(*row.pair.prompted_ids, *row.ids) for row in newcomers])
    return [_Window(stream, newcomers, logits)]


def _narrow(windows: list[_Window], rows: list[Row], streams: StreamPair | None) -> list[_Window]:
    """Drops from the windows the rows that ended or left; an empty window's cache is let go."""
    alive = {id(row) for row in rows if row.wants_contrast}
    narrowed = []
    for window in windows:
        places = [place for place, row in enumerate(window.rows) if id(row) in alive]
        window.rows = [window.rows[place] for place in places]
        if places:
            window.stream.keep(places)
            window.logits = window.logits[places]
            narrowed.append(window)
        elif streams is None:
            window.stream.release()
    return narrowed


def _settle(rows: list[Row], logits: torch.Tensor, settings: Settings, noise: torch.Tensor | None) -> None:
    """Before the first token: a row that may think is told what it would plainly begin with."""
    undecided = [place for place, row in enumerate(rows) if row.phase is Phase.UNDECIDED]
    if undecided:
        plain = take_step(default, logits, None, [], settings, noise)
        for place in undecided:
            rows[place].settle(plain[place].token_id)


def _noise(rows: list[Row], logits: torch.Tensor) -> torch.Tensor | None:
    generators = [row.generator for row in rows if row.generator is not None]
    return draw_noise(generators, logits.shape[-1], logits.device) if generators else None


def _seed_of(request: Request, settings: Settings) -> int | None:
    if settings.temperature == 0:
        return None
    for seed in (request.seed, settings.seed):
        if seed is not None:
            return seed
    return secrets.randbits(31)


def check_room(model: LanguageModel, pairs: Sequence[PromptPair], settings: Settings) -> None:
    """Refuses prompts that leave no room for an answer; `decode` does so for its batch.

    Raises:
        PromptError: a prompt is empty or as long as the model's context; the message numbers it from 1.
    """
    method = METHODS[settings.effective_method]
    contrasts, second = method.window(settings) > 0, method.second_stream(settings)
    limit = model.context_for(method, settings)
    for number, pair in enumerate(pairs, 1):
        unprompted, prompted = len(pair.unprompted_ids), len(pair.prompted_ids)
        longest = max(unprompted, prompted) if contrasts else unprompted
        which = "The prompt" if len(pairs) == 1 else f"Prompt {number}"
        if unprompted == 0:
            raise PromptError(f"{which} is empty: it has no token.", "Give a prompt with some text in it.")
        if limit is not None and longest >= limit:
            extra = ""
            if second is not None and longest > unprompted:
                extra = f" with the {spoken(second.prompt)} ({unprompted} without)"
            raise PromptError(
                f"{which} is {longest} tokens long{extra}, and the model's context is {limit}, the answer "
                "included.",
                "Shorten the prompt, or use a model with a longer context.",
            )
