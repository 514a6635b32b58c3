"""One answer of a served model: steps of the contrast window, then stretches that the server decodes itself.

A step asks for both streams' most probable next tokens and lets the rule choose here. A stretch is one
streamed request for the unprompted stream, from the ids so far; it ends with the answer, or where the window
begins (after a model's thinking), and one that broke off or ended early is taken up again. The events are the
row's own, as the engine makes them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import torch

from adacd_cli.engine.row import Phase, Row
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.step import RowCandidate, RowOutcome, pack_step, unpack
from adacd_cli.events import Decision, Event, Measures
from adacd_cli.remote.dialects.base import Dialect, Said, Sampling, TopList
from adacd_cli.remote.failures import ServerGone, ServerSilent
from adacd_cli.remote.lists import Lacking, check_id, check_ids, check_rest, dense, is_certain, lacking

FIRST_COUNTS = (128, 256)
"""How many tokens the unprompted and the prompted list have at first. SmolLM2-135M at β = 0.01 needs more in
2 and 14 of 100 steps; a question costs a forward, a longer list hardly anything."""

_GROWTH = 8
_ROUNDED = 0.5
"""Nats by which a server's answers to two requests may differ: another batch is rounded otherwise."""

_CPU = torch.device("cpu")


class Answer:
    """Decodes one row; its events are handed to `put` as they come.

    Args:
        row: the request.
        dialect: who answers.
        vocab: tokens in the vocabulary.
        put: takes the events.
        inexact: called where a step's token is not certain.
    """

    def __init__(
        self,
        row: Row,
        dialect: Dialect,
        vocab: int,
        put: Callable[[Event], None],
        inexact: Callable[[], None],
    ) -> None:
        self._row, self._dialect, self._vocab = row, dialect, vocab
        self._put, self._inexact = put, inexact

    async def run(self) -> None:
        """Decodes until the row is finished.

        Raises:
            ServerRefused: the server does not take a request, or gives what cannot be believed.
            ServerGone: it does not answer any more.
        """
        row, silences = self._row, 0
        while row.finish is None:
            if row.window > 0 and row.phase is not Phase.THINKING:
                await self._step()
                continue
            before = len(row.ids)
            try:
                await self._stretch()
            except ServerGone as failure:
                silences += isinstance(failure, ServerSilent)
                if len(row.ids) == before or silences > 1:
                    raise
                continue  # it is asked once more for the rest, with as much patience
            if row.finish is None and len(row.ids) == before:
                # the server ends what the row does not: one token is asked for and chosen here
                await self._plain_step()

    async def _step(self) -> None:
        """A token of the contrast window; the first one of a model that may begin to think."""
        row = self._row
        noise = self._noise()
        if row.phase is Phase.UNDECIDED:
            plain = self._chosen_plainly(await self._ask(0, self._count(0)), noise)
            row.settle(plain.token_id)
            if not row.wants_contrast:  # it begins to think
                self._take_chosen(plain)
                return
        lists, others, lacks = await self._both(noise)
        unprompted, prompted = dense(lists[0], self._vocab), dense(lists[1], self._vocab, others)
        packed = pack_step(rule_of(row.method), unprompted, prompted, row.settings, noise, row.report)
        outcome = _only_told(unpack(packed, [row.report])[0], lists)
        self._take_chosen(replace(outcome, exact=not lacks))

    async def _both(self, noise: torch.Tensor | None) -> tuple[list[TopList], dict[int, float], Lacking]:
        """Both streams' lists, as long as the step needs them or the server makes them; what it told of the
        prompted stream besides; and what is still lacking."""
        asked = [self._count(place) for place in (0, 1)]
        lists = list(await asyncio.gather(*(self._ask(place, count) for place, count in enumerate(asked))))
        while True:
            lacks = self._lacking(lists, noise, {})
            longer = [
                place
                for place, short in enumerate((lacks.unprompted, lacks.tokens))
                if short and asked[place] < self._vocab and len(lists[place].ids) >= asked[place]
            ]
            if not longer:
                break
            for place in longer:
                asked[place] = min(_GROWTH * asked[place], self._vocab)
            more = await asyncio.gather(*(self._ask(place, asked[place]) for place in longer))
            for place, listed in zip(longer, more, strict=True):
                lists[place] = listed
        others: dict[int, float] = {}
        if lacks.tokens:  # the list is as long as it gets: these may be told one by one
            told = await self._dialect.values(self._row.prompt_ids(prompted=True), lacks.tokens)
            highest = lists[1].logprobs[-1] + _ROUNDED  # what is not listed is not more probable
            others = {token: value for token, value in told.items() if value <= highest}
            lacks = self._lacking(lists, noise, others)
        return lists, others, lacks

    def _lacking(self, lists: list[TopList], noise: torch.Tensor | None, others: dict[int, float]) -> Lacking:
        settings, gated = self._row.settings, self._row.method.follows_track
        return lacking(lists[0], lists[1], settings, self._vocab, gated=gated, noise=noise, others=others)

    def _count(self, place: int) -> int:
        """How long a stream's list is asked to be at first: as the step needs it, and as is to be told."""
        report = self._row.report
        return min(max(FIRST_COUNTS[place], report.candidates, report.top_logprobs or 0), self._vocab)

    async def _ask(self, place: int, count: int) -> TopList:
        listed = await self._dialect.ask(self._row.prompt_ids(prompted=place == 1), count)
        check_ids(listed, self._vocab, self._row.settings.plausibility)
        check_rest(listed, self._vocab)
        return listed

    async def _plain_step(self) -> None:
        outcome = self._chosen_plainly(await self._ask(0, self._count(0)), self._noise())
        if self._row.phase is Phase.UNDECIDED:
            self._row.settle(outcome.token_id)
        self._take_chosen(outcome)

    def _chosen_plainly(self, listed: TopList, noise: torch.Tensor | None) -> RowOutcome:
        row = self._row
        packed = pack_step(default, dense(listed, self._vocab), None, row.settings, noise, row.report)
        certain = is_certain(listed, row.settings, self._vocab, noise)
        return replace(_only_told(unpack(packed, [row.report])[0], [listed]), exact=certain)

    def _noise(self) -> torch.Tensor | None:
        generator = self._row.generator
        return None if generator is None else draw_noise([generator], self._vocab, _CPU)

    async def _stretch(self) -> None:
        """What the server decodes by itself, until the row is finished or a contrast window begins."""
        row = self._row
        listed = max(1, row.report.candidates, row.report.top_logprobs or 0)
        tokens = self._dialect.stream(row.prompt_ids(prompted=False), self._sampling(), row.room, listed)
        async with aclosing(tokens):
            async for said in tokens:
                check_id(said.token_id, self._vocab)
                check_ids(said.top, self._vocab, row.settings.plausibility)
                if row.phase is Phase.UNDECIDED:
                    row.settle(said.token_id)
                self._take(self._outcome(said), last=said.last)
                if row.finish is not None or row.wants_contrast:
                    return

    def _sampling(self) -> Sampling:
        row, settings = self._row, self._row.settings
        # one that is taken up again draws on, rather than the same once more
        seed = None if row.seed is None else (row.seed + len(row.ids)) % 2**63
        return Sampling(settings.temperature, settings.top_p, settings.top_k, seed)

    def _outcome(self, said: Said) -> RowOutcome:
        """A streamed token as a plain step of the engine."""
        report = self._row.report
        pairs = zip(said.top.ids, said.top.logprobs, strict=True)
        top, own = [pair for pair in pairs if pair[0] < self._vocab], said.logprob
        likeliest = max(own, said.top.logprobs[0])
        offered = top[: report.candidates]
        if report.candidates and said.token_id not in [token for token, _ in offered]:
            offered = [*offered[: report.candidates - 1], (said.token_id, own)]
        return RowOutcome(
            finite=True,
            token_id=said.token_id,
            plain_token_id=said.token_id,
            decision=Decision.PLAIN,
            measures=Measures(confidence=min(1.0, math.exp(likeliest))),
            candidates=tuple(RowCandidate(token, value, None, value, True) for token, value in offered),
            logprob=None if report.top_logprobs is None else own,
            top_logprobs=tuple(top[: report.top_logprobs or 0]),
        )

    def _take_chosen(self, outcome: RowOutcome) -> None:
        """A token that was chosen here."""
        if not outcome.exact:
            self._inexact()
        self._take(outcome)

    def _take(self, outcome: RowOutcome, *, last: bool = False) -> None:
        self._put(self._row.take(outcome, last=last))


def _only_told(outcome: RowOutcome, lists: Sequence[TopList]) -> RowOutcome:
    """Without the tokens that no list has: their values are the rest, shared out.

    Args:
        outcome: of a step.
        lists: that of the unprompted stream, and that of the prompted one if there is one.
    """
    told = {token for listed in lists for token in listed.ids}
    return replace(
        outcome,
        candidates=tuple(each for each in outcome.candidates if each.token_id in told),
        top_logprobs=tuple(each for each in outcome.top_logprobs if each[0] in lists[0].ids),
    )
