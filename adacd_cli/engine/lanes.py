"""Lanes: a stream, and whose rows it holds.

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
from adacd_cli.engine.positions import positions_of
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
    def model(self) -> Any:
        """What reads it."""
        return self.row.readers[self.prompted]

    @property
    def ids(self) -> tuple[int, ...]:
        """What has to be fed for the request's next token: its prompt and the answer so far."""
        return self.row.prompt_ids(self.prompted)

    @property
    def wanted(self) -> bool:
        """Whether the request's next token needs it."""
        return self.row.finish is None and (not self.prompted or self.row.wants_contrast)


class Lanes:
    """The lanes that one model reads in one forward.

    Args:
        model: what reads them.
        lanes: at least one, all on one side of the model's borders (see `positions`); what each is fed is its
            prompt and what was answered so far.
        known: beginnings that may be taken over, and where ended lanes leave theirs; None for neither.
        compiled: the model's compiled forwards; None for none.

    Attributes:
        lanes: in the order of the stream's rows.
        logits: of each lane's next token, float32 [lanes, vocab]; there once all has been read.
    """

    logits: torch.Tensor

    def __init__(
        self, model: Any, lanes: Sequence[Lane], known: Prefixes | None, compiled: Compiled | None = None
    ) -> None:
        self.lanes = list(lanes)
        self._stream, self._known = Stream(model, compiled), known
        self._positions = positions_of(model)
        self._side = self._positions.side(len(lanes[0].ids))

    def read(self) -> None:
        """Feeds all that is to be read, in one forward."""
        prompts = [lane.ids for lane in self.lanes]
        found = [self._known.find(self.model, prompt) for prompt in prompts] if self._known else []
        self.logits = self._stream.prefill(prompts, found)

    def read_piece(self, tokens: int) -> bool:
        """Feeds the only lane this many tokens of what is to be read; gives whether none is left."""
        stream, ids = self._stream, self.lanes[0].ids
        if stream.rows == 0 and self._known is not None:
            found = self._known.find(self.model, ids)
            if found is not None:
                stream.begin(*found)
        start = stream.lengths[0] if stream.rows else 0
        self.logits = stream.feed(ids[start : start + tokens], 1)
        if not stream.joins:  # a running state may not go on with more than one token
            stream.release()
            self.read()
        return stream.lengths[0] == len(ids)

    @property
    def model(self) -> Any:
        """What reads them."""
        return self._stream.model

    def joins(self, other: Lanes) -> bool:
        """Whether those of another group can be taken in."""
        same = self.model is other.model and self._side == other._side
        return same and self._stream.joins and other._stream.joins

    def turning(self) -> list[Lane]:
        """The lanes whose last token gives all before it other keys: they have to be read again."""
        if not self._positions.borders:
            return []
        return [lane for lane in self.lanes if self._positions.turns(len(lane.ids))]

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
        ids = lane.ids[: self._stream.lengths[place]]
        if self._known.wants(self.model, ids):
            self._known.add(Prefix(self._stream.model, ids, self._stream.copy_row(place)))
