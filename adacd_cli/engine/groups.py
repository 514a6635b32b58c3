"""Groups: the lanes of all running requests, and those of requests whose prompts are still being read.

What a forward of one step holds is read in it. A longer prompt is read in pieces, one a step, so that it does
not keep those who run, or leave, waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from adacd_cli.engine.lanes import Lane, Lanes
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.positions import positions_of
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.row import Row

_PORTION = {"cpu": 512}
_PORTION_ELSEWHERE = 4096
"""Prompt tokens that are fed in one step: enough for a forward to be efficient."""


@dataclass(frozen=True)
class _Reading:
    """A request whose prompts are read in pieces: its lanes, each alone, that are read and that are not."""

    row: Row
    unread: list[Lanes]
    read: list[Lanes] = field(default_factory=list)


class Groups:
    """The lanes that are read: one group for each model, several where rows cannot join.

    Args:
        model: what answers.
        known: beginnings that may be taken over, and where ended lanes leave theirs; None for neither.
    """

    def __init__(self, model: LanguageModel, known: Prefixes | None) -> None:
        self._model, self._known = model, known
        self._groups: list[Lanes] = []
        self._readings: list[_Reading] = []
        self._portion = _PORTION.get(model.device.type, _PORTION_ELSEWHERE)

    def open(self, rows: Sequence[Row]) -> None:
        """Takes requests in: feeds their prompts, and answers so far, but leaves to `read` what is too long.

        Args:
            rows: their unprompted lanes are opened, and the prompted ones of those that want contrast now.
        """
        lanes: list[Lane] = []
        for row in rows:
            own = _lanes_of(row)
            if self._in_pieces(own):
                self._readings.append(_Reading(row, [self._lanes([lane]) for lane in own]))
            else:
                lanes += own
        self._open(lanes)

    def open_late(self, rows: Sequence[Row]) -> None:
        """Feeds the prompted lanes of requests that run: their answer begins after thinking."""
        self._open([Lane(row, prompted=True) for row in rows])

    def read(self) -> None:
        """Feeds the next piece of the request that has been read for longest."""
        if not self._readings:
            return
        reading = self._readings[0]
        if not reading.unread[0].read_piece(self._portion):
            return
        reading.read.append(reading.unread.pop(0))
        if not reading.unread:
            self._readings.pop(0)
            for lanes in reading.read:
                self._place(lanes)

    @property
    def reading(self) -> bool:
        """Whether there is something left to `read`."""
        return bool(self._readings)

    def reads(self, row: Row) -> bool:
        """Whether there is still something to be read of a request that was opened."""
        return any(reading.row is row for reading in self._readings)

    def first_portion(self, rows: Sequence[Row]) -> int:
        """How many of the first of these requests one step takes in; at least one."""
        tokens = 0
        for place, row in enumerate(rows):
            lanes = _lanes_of(row)
            tokens += 0 if self._in_pieces(lanes) else sum(map(self._new_tokens, lanes))
            if place > 0 and tokens > self._portion:
                return place
        return len(rows)

    def _in_pieces(self, lanes: Sequence[Lane]) -> bool:
        """Whether a prompt is too long for one step, and all of them can be read apart."""
        long = [lane for lane in lanes if len(lane.ids) > self._portion]
        return any(self._new_tokens(lane) > self._portion for lane in long) and all(
            positions_of(lane.model).alike(1, len(lane.ids)) for lane in lanes
        )

    def _new_tokens(self, lane: Lane) -> int:
        """How many tokens have to be fed, because they are not known."""
        found = None if self._known is None else self._known.find(lane.model, lane.ids)
        return len(lane.ids) - (0 if found is None else found[1])

    def _open(self, lanes: Sequence[Lane]) -> None:
        """Feeds lanes all that there is to be read, and places them."""
        together: dict[Hashable, list[Lane]] = {}
        for lane in lanes:
            side = positions_of(lane.model).side(len(lane.ids))
            together.setdefault((id(lane.model), side), []).append(lane)
        for own in together.values():
            # padding costs a CPU as much as tokens, and what is known of the two streams differs in length
            parts = [own]
            if self._known is not None or self._model.device.type == "cpu":
                parts = [[lane for lane in own if lane.prompted is prompted] for prompted in (False, True)]
            for part in filter(None, parts):
                new = self._lanes(part)
                new.read()
                self._place(new)

    def _lanes(self, lanes: Sequence[Lane]) -> Lanes:
        model = lanes[0].model
        return Lanes(model, lanes, self._known, self._model.compiled if model is self._model.model else None)

    def _place(self, new: Lanes) -> None:
        for group in self._groups:
            if group.joins(new):
                group.join(new)
                return
        self._groups.append(new)

    def narrow(self, wanted: Callable[[Lane], bool]) -> None:
        """Drops the lanes that are not wanted any more, and what is being read of requests that ended."""
        self._readings = [reading for reading in self._readings if not reading.row.closed]
        for group in self._groups:
            group.narrow(wanted)
        self._groups = [group for group in self._groups if group.lanes]

    def advance(self) -> None:
        """Feeds each lane its request's last token."""
        turning = [lane for group in self._groups for lane in group.turning()]
        if turning:
            self.narrow(lambda lane: lane not in turning)
        for group in self._groups:
            group.advance([lane.row.ids[-1] for lane in group.lanes])
        self._open(turning)

    def advance_unseen(self, tokens: torch.Tensor, rows: Sequence[Row]) -> None:
        """Feeds the lanes the rows' tokens, int64 [rows] on the device, before the host has seen them.

        What turns out to be finished has been fed one token for nothing.
        """
        places = {id(row): place for place, row in enumerate(rows)}
        self.narrow(lambda lane: lane.row.room > 1 and not (lane.prompted and lane.row.window == 1))
        for group in self._groups:
            index = torch.tensor([places[id(lane.row)] for lane in group.lanes], device=tokens.device)
            group.advance(tokens[index])

    def logits(self, rows: Sequence[Row], *, prompted: bool) -> torch.Tensor:
        """Those of the rows' next tokens in one of the streams, float32 [rows, vocab]."""
        found = self._found(prompted)
        places = [found[id(row)] for row in rows]
        first, start = places[0]
        if [place for _, place in places] == list(range(start, start + len(rows))) and all(
            group is first for group, _ in places
        ):
            return first.logits[start : start + len(rows)]
        return torch.cat([group.logits[place : place + 1] for group, place in places])

    def without_prompted(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that have no prompted lane."""
        found = self._found(prompted=True)
        return [row for row in rows if id(row) not in found]

    def _found(self, prompted: bool) -> dict[int, tuple[Lanes, int]]:
        """Where each row's lane of one of the streams is."""
        return {
            id(lane.row): (group, place)
            for group in self._groups
            for place, lane in enumerate(group.lanes)
            if lane.prompted is prompted
        }


def _lanes_of(row: Row) -> list[Lane]:
    """The lanes that a request's next token needs."""
    return [Lane(row, prompted) for prompted in ((False, True) if row.wants_contrast else (False,))]
