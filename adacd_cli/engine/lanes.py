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

    def advance(self, token_of: Callable[[Row], int]) -> None:
        """Feeds each lane its request's last token."""
        self.logits = self._stream.advance([token_of(lane.row) for lane in self.lanes])

    def advance_unseen(self, tokens: torch.Tensor, places: Sequence[int]) -> None:
        """Feeds each lane a token that the host has not seen: `tokens[places[lane]]`, int64 on the device."""
        index = torch.tensor(places, device=tokens.device)
        self.logits = self._stream.advance(tokens[index])

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
