"""Decoding with a draft model: it proposes a few tokens, the target scores them all in one forward.

The rule decides at every proposed place from both models' distributions there. The first token that is not
the draft's ends the round, and what was proposed after it is taken back from both caches. Since the decisions
depend on nothing else, the tokens are those of asking both models one token at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from adacd_cli.config.methods import Method
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.row import Phase, Row
from adacd_cli.engine.rules.base import Rule
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.rules.ssd import Annealing
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.step import RowOutcome, take_step
from adacd_cli.engine.stream import Stream, StreamPair
from adacd_cli.events import Event

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def run_with_draft(
    model: LanguageModel,
    method: Method,
    rows: list[Row],
    settings: Settings,
    candidates: int,
    streams: StreamPair | None,
    cancelled: Callable[[int], bool],
) -> Iterator[Event]:
    """The events of the rows, one row after the other: each goes back in its caches by itself."""
    second = method.second_stream(settings)
    assert second is not None, "a method with a draft has a second stream"
    for row in rows:
        row.begin()
        pair = streams or StreamPair(
            Stream(model.first(method, settings)), Stream(model.second(second, settings))
        )
        answer = _Answer(row, pair, settings, candidates)
        while row.finish is None:
            if cancelled(row.index):
                yield row.finished()
                break
            for outcome in answer.steps():
                if not outcome.finite:
                    raise row.not_finite()
                yield row.take(outcome)
                if row.finish is not None:
                    yield row.finished()
                    break
                if cancelled(row.index):
                    break


class _Answer:
    """One request's answer: its two streams and where its annealing stands."""

    def __init__(self, row: Row, streams: StreamPair, settings: Settings, candidates: int) -> None:
        self._row, self._settings, self._candidates = row, settings, candidates
        self._target, self._draft = streams.unprompted, streams.prompted
        self._annealing = Annealing(settings)

    def steps(self) -> Iterator[RowOutcome]:
        """The outcomes of one round; the caller takes each into the row before it asks for the next."""
        row = self._row
        noise = None
        if not row.wants_contrast:  # a step of thinking, or one that may begin it: the target alone
            logits = self._target.score((*row.pair.unprompted_ids, *row.ids), 1)
            noise = self._draw(logits)
            plain = self._choose(default, logits, None, noise)
            if row.phase is Phase.UNDECIDED:
                row.settle(plain.token_id)
            if not row.wants_contrast:
                yield plain
                return
        proposed, drafted = self._propose()
        wanted = self._target.score((*row.pair.unprompted_ids, *row.ids, *proposed[:-1]), len(proposed))
        for place, token in enumerate(proposed):
            if place > 0 or noise is None:
                noise = self._draw(wanted)
            outcome = self._choose(
                self._annealing.rule, wanted[place : place + 1], drafted[place : place + 1], noise
            )
            yield outcome
            self._annealing.log(match=outcome.token_id == token)
            if outcome.token_id != token:
                return

    def _propose(self) -> tuple[list[int], torch.Tensor]:
        """The draft's own next tokens, greedily, and its logits at each: [tokens, vocab]."""
        row = self._row
        proposed: list[int] = []
        logits: list[torch.Tensor] = []
        for _ in range(min(self._settings.draft_tokens, row.room)):
            logits.append(self._draft.score((*row.pair.prompted_ids, *row.ids, *proposed), 1))
            proposed.append(int(logits[-1].argmax(dim=-1)))
        return proposed, torch.cat(logits)

    def _draw(self, logits: torch.Tensor) -> torch.Tensor | None:
        """One token's noise, float32 [1, vocab]; None when greedy."""
        generator = self._row.generator
        return None if generator is None else draw_noise([generator], logits.shape[-1], logits.device)

    def _choose(
        self, rule: Rule, wanted: torch.Tensor, drafted: torch.Tensor | None, noise: torch.Tensor | None
    ) -> RowOutcome:
        contrasted: list[int] = []
        if drafted is not None:
            contrasted = [0]
            vocab = min(wanted.shape[-1], drafted.shape[-1])  # one may be padded further than the other
            wanted, drafted = wanted[:, :vocab], drafted[:, :vocab]
            noise = None if noise is None else noise[:, :vocab]
        return take_step(rule, wanted, drafted, contrasted, self._settings, noise, self._candidates)[0]
