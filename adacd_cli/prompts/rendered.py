"""A rendered prompt that is searched for the user's words, though templates trim and re-space them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from adacd_cli.prompts.prompts import shared_length

_LOOSE = re.compile(r"\s+|/no_?think|/think", re.IGNORECASE)
"""What templates take out of a message or change in it: white space, and the flags that switch thinking."""


@dataclass(frozen=True)
class Rendered:
    """One stream's rendered text.

    It is compared loosely: white space, thinking flags and letter case do not count.
    """

    text: str

    @cached_property
    def _loose(self) -> str:
        return _loosen(self.text)

    def holds(self, words: str) -> bool:
        """Whether the words are in the text, as far as they can be found in it."""
        return cannot_be_found(words) or words in self.text or self.count(words) > 0

    def count(self, words: str) -> int:
        """How often the words are in the text."""
        loose = _loosen(words)
        return self._loose.count(loose) if loose else self.text.count(words)

    def ends_like(self, other: Rendered, words: str) -> bool:
        """Whether both continue in the same way after the last occurrence of the words."""
        trimmed, loose = words.strip(), _loosen(words)
        if trimmed in self.text and trimmed in other.text:
            return self.text.rpartition(trimmed)[2] == other.text.rpartition(trimmed)[2]
        if not loose:
            return self.text[-1:] == other.text[-1:]
        return self._loose.rpartition(loose)[2] == other._loose.rpartition(loose)[2]

    def adds(self, added: str, bare: Rendered, words: str, *, after: bool) -> bool:
        """Whether this is `bare` with a text inserted right after (or before) an occurrence of the words.

        Nothing else may differ, to the letter. Loosely compared, the inserted text must be `added`; and what
        both share up to it (after) or from it on (before) must include the words.
        """
        front = shared_length(self.text, bare.text)
        back = shared_length(self.text[::-1], bare.text[::-1])
        size = len(bare.text)
        if front + back < size:
            return False
        mine, theirs, text, near = self._loose, bare._loose, _loosen(added), _loosen(words)
        if len(mine) != len(theirs) + len(text):
            return False
        # Where the insertion may begin in the loose text, were it not for what is inserted.
        first = len(theirs) - shared_length(mine[::-1], theirs[::-1])
        last = shared_length(mine, theirs)
        if after:
            last = min(last, len(_loosen(bare.text[:front])))
        else:
            first = max(first, len(theirs) - len(_loosen(bare.text[size - back :])))
        reach = len(near) if after else 0
        place = theirs.rfind(near, max(first - reach, 0), last + len(near) - reach)
        while place >= 0:
            start = place + reach
            if mine[start : start + len(text)] == text:
                return True
            place = theirs.rfind(near, max(first - reach, 0), place + len(near) - 1) if near else -1
        return False


def cannot_be_found(words: str) -> bool:
    """Whether the words are nothing but white space and thinking flags, which a template may take out."""
    return not _loosen(words)


def _loosen(text: str) -> str:
    return _LOOSE.sub("", text).casefold()
