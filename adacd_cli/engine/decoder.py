"""THE loop: requests in at any time, events out, a step at a time.

Each step feeds every running request its last token, takes in waiting ones where there is room, and chooses
a token for each: by its method's rule inside its contrast window, plainly elsewhere. A request ends, and
leaves its place, without the others noticing; its tokens do not depend on who runs beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator

import torch

from adacd_cli.engine.groups import Groups
from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.places import Places
from adacd_cli.engine.positions import positions_of
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.protocol import Cancelled, Failed, never
from adacd_cli.engine.row import Phase, Request, Row
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.speculate import Drafted
from adacd_cli.engine.step import TOKEN, RowOutcome, join_packed, pack_step, unpack
from adacd_cli.errors import AdacdError, OutOfMemoryError
from adacd_cli.events import Event, Started

_ADMITTED = 8
"""While others run, newcomers wait until this part of the places is free, so that they are fed together."""


class Decoder:
    """Decodes requests side by side.

        decoder = Decoder(model)
        started = decoder.submit(request)
        while decoder.busy:
            for event in decoder.step():
                …

    Args:
        model: the model, ready to decode.
        places: how many requests run at once; lowered where memory is short, until all that run have ended.
            None for no limit.
        candidates: how many of the most probable tokens each step reports; 0 for none.
        known: beginnings of prompts to take over, and where to leave them; None for neither.
        cancelled: asked before each step with a request's number; True ends it as CANCELLED.
        failed: told of a request's own error, so that the others go on; None raises it instead.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        places: Places | None = None,
        candidates: int = 0,
        known: Prefixes | None = None,
        cancelled: Cancelled = never,
        failed: Failed | None = None,
    ) -> None:
        self._model, self._candidates = model, candidates
        self._places = Places() if places is None else places
        self._most = self._places.limit
        self._known, self._cancelled, self._failed = known, cancelled, failed
        self._submitted = 0
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._groups = self._no_lanes()
        self._drafted: Drafted | None = None
        # a GPU computes the next logits while the host looks at this step's tokens
        self._ahead = model.device.type == "cuda" and not positions_of(model.model).borders
        self._fed = True  # whether the lanes hold every running row's last token
        self._vocab = 0

    def _no_lanes(self) -> Groups:
        return Groups(self._model, self._known)

    @property
    def busy(self) -> bool:
        """Whether a request is not finished yet."""
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return len(self._waiting)

    def submit(self, request: Request) -> Started:
        """Takes a request in; it runs as soon as there is a place.

        Args:
            request: its number in the events counts the requests submitted.

        Raises:
            ModelError: what the method needs besides the model is not loaded.
        """
        row = Row(self._submitted, request, self._model, self._candidates)
        row.readers  # noqa: B018 - what is not loaded is said before anything is decoded
        if not self.busy:  # what was short of memory has ended
            self._places.limit = self._most
        self._submitted += 1
        self._waiting.append(row)
        return row.started()

    def step(self) -> Iterator[Event]:
        """One token for every running request whose prompts were read, after newcomers were taken in.

        Raises:
            LogitsError: a logit is NaN or infinite, and `failed` is None.
            OutOfMemoryError: not even a single request fits, and `failed` is None.
            KeyboardInterrupt: call `close` for the events of what was not finished.
        """
        yield from self._drop_cancelled()
        shortage: str | None = None
        try:
            chosen = self._choose()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            shortage = str(error)
        if shortage is not None:  # out here, because the error itself holds on to what did not fit
            yield from self._begin_again(shortage)
            return
        for row, outcome in chosen:
            if not outcome.finite:
                yield self._fail(row, row.not_finite())
                continue
            yield row.take(outcome)
            if row.finish is not None:
                yield row.finished()
        self._leave()

    def close(self) -> Iterator[Event]:
        """Finished of every request that has none yet."""
        for row in (*self._running, *self._waiting):
            if not row.closed:
                yield row.finished()
        self._running, self._groups, self._drafted = [], self._no_lanes(), None
        self._waiting.clear()

    def _fail(self, row: Row, error: AdacdError) -> Event:
        if self._failed is None:
            raise error
        self._failed(row.index, error)
        return row.finished()

    def _drop_cancelled(self) -> Iterator[Event]:
        for row in (*self._running, *self._waiting):
            if row.finish is not None or self._cancelled(row.index):  # finished: no token was asked for
                yield row.finished()
        self._waiting = deque(row for row in self._waiting if not row.closed)
        self._leave()

    def _leave(self) -> None:
        """Lets go of what finished requests hold."""
        self._running = [row for row in self._running if not row.closed]
        self._groups.narrow(lambda lane: lane.wanted and not lane.row.closed)
        if self._drafted is not None and self._drafted.row.closed:
            self._drafted.leave(self._known)
            self._drafted = None

    def _choose(self) -> list[tuple[Row, RowOutcome]]:
        """A token for every running row."""
        if not self._fed:
            self._groups.advance()
            self._fed = True
        self._admit()
        self._groups.read()
        rows = [row for row in self._running if not row.drafts and not self._groups.reads(row)]
        drafting = next((row for row in self._running if row.drafts), None)
        chosen = self._step(rows) if rows else []
        if drafting is not None:  # one after the other: each goes back in its caches by itself
            if self._drafted is None:
                self._drafted = Drafted(drafting, *drafting.readers, self._known)
            chosen.append((drafting, self._drafted.next()))
        return chosen

    def _admit(self) -> None:
        limit = self._places.limit or len(self._waiting) + len(self._running)
        free = max(0, limit - len(self._running))
        newcomers = [self._waiting[place] for place in range(min(free, len(self._waiting)))]
        enough = min(len(self._waiting), -(-limit // _ADMITTED))
        if not newcomers or (self._running and len(newcomers) < enough):
            return
        newcomers = newcomers[: self._groups.first_portion(newcomers)]
        for row in newcomers:
            self._waiting.popleft()
            if not row.ids:
                row.begin()
        self._running += newcomers
        self._groups.open([row for row in newcomers if not row.drafts])

    def _step(self, rows: list[Row]) -> list[tuple[Row, RowOutcome]]:
        noise = self._noise(rows)
        self._settle([row for row in rows if row.phase is Phase.UNDECIDED], noise)
        # where the answer begins now, the prompted stream catches up
        self._groups.open_late(self._groups.without_prompted([row for row in rows if row.wants_contrast]))
        alike = _alike(rows)
        packed = join_packed([self._pack(same, noise) for same in alike])
        ordered = [row for same in alike for row in same]
        if self._ahead:
            self._groups.advance_unseen(packed[:, TOKEN].long(), ordered)
        self._fed = self._ahead
        return list(zip(ordered, unpack(packed, [row.report for row in ordered]), strict=True))

    def _noise(self, rows: list[Row]) -> dict[int, torch.Tensor]:
        """What each row is sampled with, float32 [vocab], by its id; rows that are greedy have none."""
        sampled = [(row, row.generator) for row in rows if row.generator is not None]
        if not sampled:
            return {}
        self._vocab = self._groups.logits(rows[:1], prompted=False).shape[-1]
        noise = draw_noise([generator for _, generator in sampled], self._vocab, self._model.device)
        return {id(row): own for (row, _), own in zip(sampled, noise, strict=True)}

    def _settle(self, rows: list[Row], noise: dict[int, torch.Tensor]) -> None:
        """Before the first token: a row that may think is told what it would plainly begin with."""
        for same in _alike(rows):
            logits = self._groups.logits(same, prompted=False)
            plain = unpack(pack_step(default, logits, None, same[0].settings, _of(same, noise)))
            for row, outcome in zip(same, plain, strict=True):
                row.settle(outcome.token_id)

    def _pack(self, rows: list[Row], noise: dict[int, torch.Tensor]) -> torch.Tensor:
        """A step over rows that choose alike."""
        return pack_step(
            rule_of(rows[0].method),
            self._groups.logits(rows, prompted=False),
            self._groups.logits(rows, prompted=True) if rows[0].wants_contrast else None,
            rows[0].settings,
            _of(rows, noise),
            rows[0].report,
        )

    def _begin_again(self, reason: str) -> Iterator[Event]:
        """Half as many requests at a time: all wait again, with what they have answered so far.

        Raises:
            OutOfMemoryError: there was only one, and `failed` is None.
        """
        rows, self._running, self._groups, self._drafted = self._running, [], self._no_lanes(), None
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._fed = True
        if len(rows) <= 1:
            self._running = rows
            error = OutOfMemoryError(
                f"The memory of {self._model.device} is not enough for a single request: {reason.strip()}",
                "Use a shorter prompt, a smaller --max-new-tokens, --dtype bfloat16 or --quantize.",
            )
            for row in rows:
                yield self._fail(row, error)
            if not rows:
                raise error
            self._running = []
            return
        for row in reversed(rows):
            row.redraw(self._vocab)
            self._waiting.appendleft(row)
        self._places.limit = len(rows) // 2


def _alike(rows: list[Row]) -> list[list[Row]]:
    """The rows by what their next token is chosen by."""
    by_choice: dict[Hashable, list[Row]] = {}
    for row in rows:
        by_choice.setdefault(row.alike, []).append(row)
    return list(by_choice.values())


def _of(rows: list[Row], noise: dict[int, torch.Tensor]) -> torch.Tensor | None:
    """The noise of rows that choose alike, float32 [rows, vocab]; None where they are greedy."""
    return torch.stack([noise[id(row)] for row in rows]) if id(rows[0]) in noise else None
