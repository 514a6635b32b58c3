"""THE loop: requests in at any time, events out, a step at a time.

Each step feeds every running request its last token, takes in waiting ones where there is room, and chooses
a token for each: by its method's rule inside its contrast window, plainly elsewhere. A request ends, and
leaves its place, without the others noticing; its tokens do not depend on who runs beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.engine.compiled import Compiled
from adacd_cli.engine.lanes import Lane, Lanes
from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.places import Places
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.row import Phase, Request, Row
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import draw_noise
from adacd_cli.engine.speculate import Drafted
from adacd_cli.engine.step import TOKEN, RowOutcome, pack_step, take_step, unpack
from adacd_cli.errors import OutOfMemoryError
from adacd_cli.events import Event, Started

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_ADMITTED = 8
"""While others run, newcomers wait until this part of the places is free, so that they are fed together."""


def _never(request: int) -> bool:
    return False


class Decoder:
    """Decodes requests side by side.

        decoder = Decoder(model)
        started = decoder.submit(request, settings)
        while decoder.busy:
            for event in decoder.step():
                …

    Args:
        model: the model, ready to decode.
        places: how many requests run at once; lowered where memory is short. None for no limit.
        candidates: how many of the most probable tokens each step reports; 0 for none.
        known: beginnings of prompts to take over, and where to leave them; None for neither.
        cancelled: asked before each step with a request's number; True ends it as CANCELLED.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        places: Places | None = None,
        candidates: int = 0,
        known: Prefixes | None = None,
        cancelled: Callable[[int], bool] = _never,
    ) -> None:
        self._model, self._candidates = model, candidates
        self._places = Places() if places is None else places
        self._known, self._cancelled = known, cancelled
        self._submitted = 0
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._groups: list[Lanes] = []
        self._drafted: Drafted | None = None
        # a GPU computes the next logits while the host looks at this step's tokens
        self._ahead = model.device.type == "cuda"
        self._fed = True  # whether the lanes hold every running row's last token
        self._vocab = 0

    @property
    def busy(self) -> bool:
        """Whether a request is not finished yet."""
        return bool(self._waiting or self._running)

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    def submit(self, request: Request, settings: Settings) -> Started:
        """Takes a request in; it runs as soon as there is a place.

        Args:
            request: its number in the events counts the requests submitted.
            settings: used where the request has none of its own.

        Raises:
            ModelError: what the method needs besides the model is not loaded.
        """
        row = Row(self._submitted, request, self._model, settings)
        self._readers(row)  # what is not loaded is said before anything is decoded
        self._submitted += 1
        self._waiting.append(row)
        return row.started()

    def step(self) -> Iterator[Event]:
        """One token for every running request, after newcomers were taken in.

        Raises:
            LogitsError: a logit is NaN or infinite.
            OutOfMemoryError: not even a single request fits.
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
            self._begin_again(shortage)
            return
        for row, outcome in chosen:
            if not outcome.finite:
                raise row.not_finite()
            yield row.take(outcome)
            if row.finish is not None:
                yield row.finished()
        self._leave()

    def close(self) -> Iterator[Event]:
        """Finished of every request that has none yet."""
        for row in (*self._running, *self._waiting):
            if not row.closed:
                yield row.finished()
        self._running, self._groups, self._drafted = [], [], None
        self._waiting.clear()

    def _drop_cancelled(self) -> Iterator[Event]:
        for row in (*self._running, *self._waiting):
            if row.finish is not None or self._cancelled(row.index):  # finished: no token was asked for
                yield row.finished()
        self._waiting = deque(row for row in self._waiting if not row.closed)
        self._leave()

    def _leave(self) -> None:
        """Lets go of what finished requests hold."""
        self._running = [row for row in self._running if not row.closed]
        self._narrow(lambda lane: lane.wanted and not lane.row.closed)
        if self._drafted is not None and self._drafted.row.closed:
            self._drafted.leave(self._known)
            self._drafted = None

    def _narrow(self, wanted: Callable[[Lane], bool]) -> None:
        for group in self._groups:
            group.narrow(wanted)
        self._groups = [group for group in self._groups if group.lanes]

    def _choose(self) -> list[tuple[Row, RowOutcome]]:
        """A token for every running row."""
        if not self._fed:
            for group in self._groups:
                group.advance(lambda row: row.ids[-1])
            self._fed = True
        self._admit()
        rows = [row for row in self._running if not row.drafts]
        drafting = next((row for row in self._running if row.drafts), None)
        chosen = self._step(rows) if rows else []
        if drafting is not None:  # one after the other: each goes back in its caches by itself
            if self._drafted is None:
                self._drafted = Drafted(drafting, *self._readers(drafting), self._candidates, self._known)
            chosen.append((drafting, self._drafted.next()))
        return chosen

    def _admit(self) -> None:
        limit = self._places.limit or len(self._waiting) + len(self._running)
        free = max(0, limit - len(self._running))
        newcomers = [self._waiting[place] for place in range(min(free, len(self._waiting)))]
        enough = min(len(self._waiting), -(-limit // _ADMITTED))
        if not newcomers or (self._running and len(newcomers) < enough):
            return
        for row in newcomers:
            self._waiting.popleft()
            if not row.ids:
                row.begin()
        self._running += newcomers
        self._open([Lane(row, prompted=False) for row in newcomers if not row.drafts])

    def _open(self, lanes: list[Lane]) -> None:
        """Feeds the lanes their prompts, and puts them where their model's others are."""
        ready = [lane.row for lane in lanes if not lane.prompted and lane.row.wants_contrast]
        lanes = [*lanes, *(Lane(row, prompted=True) for row in ready)]
        by_model: dict[int, tuple[Any, list[Lane]]] = {}
        for lane in lanes:
            model = self._readers(lane.row)[lane.prompted]
            by_model.setdefault(id(model), (model, []))[1].append(lane)
        for model, own in by_model.values():
            # padding costs a CPU as much as tokens, and what is known of the two streams differs in length
            parts = [own]
            if self._known is not None or self._model.device.type == "cpu":
                parts = [[lane for lane in own if lane.prompted is prompted] for prompted in (False, True)]
            for part in filter(None, parts):
                self._place(Lanes(model, part, self._known, self._compiled(model)))

    def _compiled(self, model: Any) -> Compiled | None:
        own = self._model.compiled
        return own if own is not None and own.model is model else None

    def _place(self, new: Lanes) -> None:
        for group in self._groups:
            if group.model is new.model and group.joins and new.joins:
                group.join(new)
                return
        self._groups.append(new)

    def _readers(self, row: Row) -> tuple[Any, Any]:
        """The models that read the row's unprompted and prompted stream."""
        first = self._model.first(row.method, row.settings)
        return first, None if row.second is None else self._model.second(row.second, row.settings)

    def _step(self, rows: list[Row]) -> list[tuple[Row, RowOutcome]]:
        by_settings: dict[int, list[Row]] = {}
        for row in rows:
            by_settings.setdefault(id(row.settings), []).append(row)
        alike = [(same, self._noise(same)) for same in by_settings.values()]
        for same, noise in alike:
            self._settle(same, noise)
        opened = {id(lane.row) for group in self._groups for lane in group.lanes if lane.prompted}
        late = [row for row in rows if row.wants_contrast and id(row) not in opened]
        if late:  # their answer begins now: the prompted stream catches up in one forward
            self._open([Lane(row, prompted=True) for row in late])
        packed = torch.cat([self._pack(same, noise) for same, noise in alike])
        ordered = [row for same, _ in alike for row in same]
        if self._ahead:
            self._feed_unseen(packed[:, TOKEN].long(), ordered)
        self._fed = self._ahead
        return list(zip(ordered, unpack(packed), strict=True))

    def _noise(self, rows: list[Row]) -> torch.Tensor | None:
        """What rows of the same settings are sampled with; None where they are greedy."""
        generators = [row.generator for row in rows if row.generator is not None]
        if not generators:
            return None
        self._vocab = self._logits(rows, prompted=False).shape[-1]
        return draw_noise(generators, self._vocab, self._model.device)

    def _settle(self, rows: list[Row], noise: torch.Tensor | None) -> None:
        """Before the first token: a row that may think is told what it would plainly begin with."""
        undecided = [place for place, row in enumerate(rows) if row.phase is Phase.UNDECIDED]
        if undecided:
            logits = self._logits(rows, prompted=False)
            plain = take_step(default, logits, None, [], rows[0].settings, noise)
            for place in undecided:
                rows[place].settle(plain[place].token_id)

    def _pack(self, rows: list[Row], noise: torch.Tensor | None) -> torch.Tensor:
        """A step over rows of the same settings."""
        contrasted = [place for place, row in enumerate(rows) if row.wants_contrast]
        prompted = None
        if contrasted:
            prompted = self._logits([rows[place] for place in contrasted], prompted=True)
        return pack_step(
            rule_of(rows[0].method),
            self._logits(rows, prompted=False),
            prompted,
            contrasted,
            rows[0].settings,
            noise,
            self._candidates,
        )

    def _logits(self, rows: list[Row], *, prompted: bool) -> torch.Tensor:
        """Those of the rows' next tokens in one of the streams, float32 [rows, vocab]."""
        found = {}
        for group in self._groups:
            for place, lane in enumerate(group.lanes):
                if lane.prompted is prompted:
                    found[id(lane.row)] = group.logits, place
        places = [found[id(row)] for row in rows]
        first, start = places[0]
        if [place for _, place in places] == list(range(start, start + len(rows))) and all(
            logits is first for logits, _ in places
        ):
            return first[start : start + len(rows)]
        return torch.cat([logits[place : place + 1] for logits, place in places])

    def _feed_unseen(self, tokens: torch.Tensor, rows: list[Row]) -> None:
        """Feeds the lanes the step's tokens before the host has seen them.

        What turns out to be finished has been fed one token for nothing.
        """
        places = {id(row): place for place, row in enumerate(rows)}
        self._narrow(lambda lane: lane.row.room > 1 and not (lane.prompted and lane.row.window == 1))
        for group in self._groups:
            group.advance_unseen(tokens, [places[id(lane.row)] for lane in group.lanes])

    def _begin_again(self, reason: str) -> None:
        """Half as many requests at a time: all wait again, with what they have answered so far.

        Raises:
            OutOfMemoryError: there was only one.
        """
        rows, self._running, self._groups, self._drafted = self._running, [], [], None
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) <= 1:
            self._running = rows
            raise OutOfMemoryError(
                f"The memory of {self._model.device} is not enough for a single request: {reason.strip()}",
                "Use a shorter prompt, a smaller --max-new-tokens, --dtype bfloat16 or --quantize.",
            )
        for row in reversed(rows):
            row.redraw(self._vocab)
            self._waiting.appendleft(row)
        self._places.limit, self._fed = len(rows) // 2, True
