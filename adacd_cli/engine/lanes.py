"""Lanes: a stream, and whose rows it holds; and the lanes of all running requests together.

A request has a lane in the stream of the unprompted prompts and, during its contrast window, one for its
prompted prompt. Both go through one forward where the same model reads them: reading its weights costs more
than a second row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adacd_cli.engine.compiled import Compiled
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.prefixes import Prefix, Prefixes
from adacd_cli.engine.row import Row
from adacd_cli.engine.stream import Stream


@dataclass(frozen=True)
class Lane:
    """One of a request's two streams.

    Attributes:
        row: the request.
        prompted: whether it is the stream with the contrast prompt.
    """

    row: Row
    prompted: bool

    @property
    def wanted(self) -> bool:
        """Whether the request's next token needs it."""
        return self.row.finish is None and (not self.prompted or self.row.wants_contrast)


class Lanes:
    """The lanes that one model reads in one forward.

    Args:
        model: what reads them.
        lanes: at least one; their prompts, and what was answered so far, are fed at once.
        known: beginnings that may be taken over, and where ended lanes leave theirs; None for neither.
        compiled: the model's compiled forwards; None for none.

    Attributes:
        lanes: in the order of the stream's rows.
        logits: of each lane's next token, float32 [lanes, vocab].
    """

    def __init__(
        self, model: Any, lanes: Sequence[Lane], known: Prefixes | None, compiled: Compiled | None = None
    ) -> None:
        self.lanes = list(lanes)
        self._stream, self._known = Stream(model, compiled), known
        prompts = [lane.row.prompt_ids(lane.prompted) for lane in lanes]
        found = [known.find(model, prompt) for prompt in prompts] if known else []
        self.logits = self._stream.prefill(prompts, found)

    @property
    def model(self) -> Any:
        """What reads them."""
        return self._stream.model

    @property
    def joins(self) -> bool:
        """Whether others can be taken in."""
        return self._stream.joins

    def join(self, other: Lanes) -> None:
        """Takes in the lanes of another group of the same model."""
        self._stream.join(other._stream)
        self.lanes += other.lanes
        self.logits = torch.cat([self.logits, other.logits])

    def advance(self, tokens: Sequence[int] | torch.Tensor) -> None:
        """Feeds each lane a token: ids, or int64 [lanes] on the device."""
        self.logits = self._stream.advance(tokens)

    def narrow(self, wanted: Callable[[Lane], bool]) -> None:
        """Drops the lanes that are not wanted any more."""
        places = [place for place, lane in enumerate(self.lanes) if wanted(lane)]
        if len(places) == len(self.lanes):
            return
        if self._known is not None and self._stream.joins:
            for place, lane in enumerate(self.lanes):
                if place not in places:
                    self._leave(place, lane)
        self._stream.keep(places)
        self.lanes, self.logits = [self.lanes[place] for place in places], self.logits[places]

    def _leave(self, place: int, lane: Lane) -> None:
        assert self._known is not None
        ids = lane.row.prompt_ids(lane.prompted)[: self._stream.lengths[place]]
        if self._known.wants(self.model, ids):
            self._known.add(Prefix(self._stream.model, ids, self._stream.copy_row(place)))


class Groups:
    """The lanes of all running requests: one group for each model, several where rows cannot join.

    Args:
        model: what answers.
        known: beginnings that may be taken over, and where ended lanes leave theirs; None for neither.
    """

    def __init__(self, model: LanguageModel, known: Prefixes | None) -> None:
        self._model, self._known = model, known
        self._groups: list[Lanes] = []

    def open(self, rows: Sequence[Row], *, late: bool = False) -> None:
        """Feeds requests their prompts, and what was answered so far.

        Args:
            rows: their unprompted lanes are opened, and the prompted ones of those that want contrast now.
            late: open the prompted ones only: the answer begins after thinking.
        """
        lanes = [] if late else [Lane(row, prompted=False) for row in rows]
        lanes += [Lane(row, prompted=True) for row in rows if row.wants_contrast]
        by_model: dict[int, tuple[Any, list[Lane]]] = {}
        for lane in lanes:
            model = lane.row.readers[lane.prompted]
            by_model.setdefault(id(model), (model, []))[1].append(lane)
        for model, own in by_model.values():
            # padding costs a CPU as much as tokens, and what is known of the two streams differs in length
            parts = [own]
            if self._known is not None or self._model.device.type == "cpu":
                parts = [[lane for lane in own if lane.prompted is prompted] for prompted in (False, True)]
            compiled = self._model.compiled if model is self._model.model else None
            for part in filter(None, parts):
                self._place(Lanes(model, part, self._known, compiled))

    def _place(self, new: Lanes) -> None:
        for group in self._groups:
            if group.model is new.model and group.joins and new.joins:
                group.join(new)
                return
        self._groups.append(new)

    def narrow(self, wanted: Callable[[Lane], bool]) -> None:
        """Drops the lanes that are not wanted any more."""
        for group in self._groups:
            group.narrow(wanted)
        self._groups = [group for group in self._groups if group.lanes]

    def advance(self) -> None:
        """Feeds each lane its request's last token."""
        for group in self._groups:
            group.advance([lane.row.ids[-1] for lane in group.lanes])

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
