"""A rendered prompt that can be searched for what the user said, though templates trim and re-space it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_LOOSE = re.compile(r"\s+|/no_?think|/think")
"""What templates take out of a message or change in it: white space, and the flags that switch thinking."""


@dataclass(frozen=True)
class Rendered:
    """One stream's rendered text."""

    text: str

    @cached_property
    def _squeezed(self) -> str:
        return _LOOSE.sub("", self.text)

    def holds(self, said: str) -> bool:
        """Whether what was said is in the text."""
        return said in self.text or self.count(said) > 0

    def count(self, said: str) -> int:
        """How often what was said is in the text, white space and thinking flags aside."""
        return self._squeezed.count(_core(said))

    def ends_like(self, other: Rendered, said: str) -> bool:
        """Whether both go on in the same way after the last place of what was said."""
        trimmed = said.strip()
        if trimmed in self.text and trimmed in other.text:
            return self.text.rpartition(trimmed)[2] == other.text.rpartition(trimmed)[2]
        return self._squeezed.rpartition(_core(said))[2] == other._squeezed.rpartition(_core(said))[2]


def _core(said: str) -> str:
    return _LOOSE.sub("", said) or said
