"""Keys and values that later prompts may begin with: the earlier turns of a chat, a system text, examples.

Requests leave their rows here as they end; a new one takes the longest beginning that it shares with any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adacd_cli.engine.cache import Tensors
from adacd_cli.engine.positions import positions_of


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a model holds of a beginning.

    Attributes:
        model: whose keys and values they are.
        ids: the token ids.
        layers: keys and values of each layer, [1, heads, len(ids), dim].
    """

    model: Any
    ids: tuple[int, ...]
    layers: list[Tensors]


class Prefixes:
    """The beginnings that were used last.

    Args:
        limit: how many are kept; each takes the memory of its tokens' keys and values.
        renew: whether a row is kept that begins like one that is kept already. A chat goes on where it was
            left; of many questions under one system text, one tells as much as all.
    """

    def __init__(self, limit: int = 4, *, renew: bool = True) -> None:
        self._limit, self._renew = limit, renew
        self._kept: list[Prefix] = []

    def find(self, model: Any, ids: Sequence[int]) -> tuple[Prefix, int] | None:
        """What shares most with a prompt, and how many tokens; never all of the prompt's."""
        best: tuple[Prefix, int] | None = None
        positions = positions_of(model)
        for prefix in self._kept:
            if prefix.model is not model or not positions.alike(len(prefix.ids), len(ids)):
                continue
            shared = shared_length(prefix.ids, ids[:-1])
            if shared > (0 if best is None else best[1]):
                best = prefix, shared
        if best is not None:  # used last, so dropped last
            self._kept.remove(best[0])
            self._kept.append(best[0])
        return best

    def wants(self, model: Any, ids: Sequence[int]) -> bool:
        """Whether a row that was fed these ids is worth keeping."""
        return self._renew or self.find(model, ids) is None

    def add(self, prefix: Prefix) -> None:
        """Keeps a beginning, instead of those that are beginnings of it; drops what was not used longest."""
        ids = prefix.ids
        self._kept = [
            each for each in self._kept if each.model is not prefix.model or each.ids != ids[: len(each.ids)]
        ]
        self._kept = [*self._kept, prefix][-self._limit :]

    def clear(self) -> None:
        """Lets all of them go."""
        self._kept.clear()


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with alike."""
    for place, (mine, theirs) in enumerate(zip(first, second, strict=False)):
        if mine != theirs:
            return place
    return min(len(first), len(second))
