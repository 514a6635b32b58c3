"""Decoding with a draft model: it proposes a few tokens, the target scores them all in one forward.

The rule decides at every proposed place from both models' distributions there. The first token that is not
the draft's ends the round, and what was proposed after it is taken back from both caches. Since the decisions
depend on nothing else, the tokens are those of asking both models one token at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from adacd_cli.engine.positions import positions_of
from adacd_cli.engine.prefixes import Prefix, Prefixes, shared_length
from adacd_cli.engine.row import Phase, Row
from adacd_cli.engine.rules.base import Rule
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.rules.ssd import Annealing
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.step import RowOutcome, pack_step, unpack
from adacd_cli.engine.stream import Stream


class Drafted:
    """One request's answer: its two streams and where its annealing stands.

    Args:
        row: the request.
        target: the model that answers.
        draft: the model that proposes.
        known: beginnings of prompts that may be taken over; None for none.
    """

    def __init__(self, row: Row, target: Any, draft: Any, known: Prefixes | None) -> None:
        self.row, self._settings = row, row.settings
        self._target = _Fed(target, row.prompts.base.ids, known)
        self._draft = _Fed(draft, row.prompted_ids, known)
        self._annealing = Annealing(row.settings)
        self._round: Iterator[RowOutcome] = iter(())
        row.begin()

    def next(self) -> RowOutcome:
        """The next token's outcome; the caller takes it into the row before asking again."""
        outcome = next(self._round, None)
        if outcome is None:
            self._round = self._steps()
            outcome = next(self._round)
        return outcome

    def leave(self, known: Prefixes | None) -> None:
        """Leaves both streams' keys and values for later prompts."""
        if known is not None:
            self._target.leave(known)
            self._draft.leave(known)

    def _steps(self) -> Iterator[RowOutcome]:
        """The outcomes of one round; the caller takes each into the row before it asks for the next."""
        row = self.row
        noise = None
        if not row.wants_contrast:  # a step of thinking, or one that may begin it: the target alone
            logits = self._target.score((*row.prompts.base.ids, *row.ids), 1)
            noise = self._draw(logits)
            plain = self._choose(default, logits, None, noise)
            if row.phase is Phase.UNDECIDED:
                row.settle(plain.token_id)
            if not row.wants_contrast:
                yield plain
                return
        proposed, drafted = self._propose()
        wanted = self._target.score((*row.prompts.base.ids, *row.ids, *proposed[:-1]), len(proposed))
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
        row = self.row
        proposed: list[int] = []
        logits: list[torch.Tensor] = []
        for _ in range(min(self._settings.draft_tokens, row.room)):
            logits.append(self._draft.score((*row.prompted_ids, *row.ids, *proposed), 1))
            proposed.append(int(logits[-1].argmax(dim=-1)))
        return proposed, torch.cat(logits)

    def _draw(self, logits: torch.Tensor) -> torch.Tensor | None:
        """One token's noise, float32 [1, vocab]; None when greedy."""
        generator = self.row.generator
        return None if generator is None else draw_noise([generator], logits.shape[-1], logits.device)

    def _choose(
        self, rule: Rule, wanted: torch.Tensor, drafted: torch.Tensor | None, noise: torch.Tensor | None
    ) -> RowOutcome:
        if drafted is not None:
            vocab = min(wanted.shape[-1], drafted.shape[-1])  # one may be padded further than the other
            wanted, drafted = wanted[:, :vocab], drafted[:, :vocab]
            noise = None if noise is None else noise[:, :vocab]
        packed = pack_step(rule, wanted, drafted, self._settings, noise, self.row.report)
        return unpack(packed, [self.row.report])[0]


class _Fed:
    """A single row's stream that knows what it was fed, and goes back to where new ids differ from it."""

    def __init__(self, model: Any, prompt: Sequence[int], known: Prefixes | None) -> None:
        self._stream, self._positions = Stream(model), positions_of(model)
        self._ids: list[int] = []
        found = known.find(model, prompt) if known else None
        if found is not None:
            self._stream.begin(*found)
            self._ids = list(prompt[: found[1]])

    def score(self, ids: Sequence[int], count: int) -> torch.Tensor:
        """Feeds what is new of the ids, and takes back what is not of them.

        Args:
            ids: the row's token ids from the first on, none left out.
            count: how many of the last positions are asked for; at least 1, at most all.

        Returns:
            Logits of the token after each of them, float32 [count, vocab].
        """
        shared = shared_length(self._ids, ids[:-count])
        if self._positions.side(len(self._ids)) != self._positions.side(len(ids)):
            self._stream.release()
            self._ids, shared = [], 0
        if shared < len(self._ids) and not self._stream.take_back(len(self._ids) - shared):
            self._stream.release()
            shared = 0
        self._ids = list(ids)
        return self._stream.feed(ids[shared:], count)

    def leave(self, known: Prefixes) -> None:
        if self._stream.rows and self._stream.joins and known.wants(self._stream.model, self._ids):
            known.add(Prefix(self._stream.model, tuple(self._ids), self._stream.copy_row(0)))
