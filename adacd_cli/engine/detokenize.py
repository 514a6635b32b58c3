"""Text as it becomes final: incomplete UTF-8 and half stop strings are held back.

The pieces joined are the answer; a piece once given is never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"
_LONGEST_INCOMPLETE = 4
"""A character has at most four bytes, so no more replacement characters can still turn into one."""


def decode_ids(tokenizer: Any, ids: Sequence[int], *, control: bool = False) -> str:
    """Ids as text, nothing tidied up; control tokens are left out unless asked for."""
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=not control, clean_up_tokenization_spaces=False
    )
    return text


class TextStream:
    """Ids in, whole characters out.

    The last piece's ids are decoded again with the new ones, because a tokenizer may drop the space before
    the first token it is given.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []
        self._pending: list[int] = []
        self._given = ""

    def push(self, token_id: int) -> str:
        """The text that became whole with this token."""
        self._pending.append(token_id)
        return self._take(final=False)

    def flush(self) -> str:
        """What is still held, incomplete or not."""
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        before = decode_ids(self._tokenizer, self._context)
        text = decode_ids(self._tokenizer, self._context + self._pending)[len(before) :]
        # of a longer run only the end can still change: what is before it is what the model wrote
        held = 0 if final else min(len(text) - len(text.rstrip(_REPLACEMENT)), _LONGEST_INCOMPLETE)
        ready = text[: len(text) - held]
        piece = ready[len(self._given) :]
        if len(ready) == len(text):
            # a piece of nothing but left-out tokens gives no context: keep the older one
            if text:
                self._context, self._pending, self._given = self._pending, [], ""
        else:
            self._given = ready if len(ready) > len(self._given) else self._given
        return piece


class StopGate:
    """Holds back text that may be the beginning of a stop string.

    Args:
        stops: stop strings, none empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that no stop string can take back; all before a stop string that is now complete."""
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found), drop_rest=True)
        return self._release(len(self._held) - self._half_stop())

    def flush(self) -> str:
        """What is still held: no stop string came of it."""
        return self._release(len(self._held))

    def _half_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

    def _release(self, length: int, drop_rest: bool = False) -> str:
        text, self._held = self._held[:length], "" if drop_rest else self._held[length:]
        return text


class Detokenizer:
    """A TextStream behind a StopGate, from which the leading white space can be left out.

    Args:
        tokenizer: anything with `decode`.
        stops: stop strings.
        strip_start: leave out white space before the first character, as it stands after thinking.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], strip_start: bool = False) -> None:
        self._stream = TextStream(tokenizer)
        self._gate = StopGate(stops)
        self._strip = strip_start

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self._gate.stopped

    def push(self, token_id: int) -> str:
        """The text that became final with this token."""
        return self._gate.push(self._stripped(self._stream.push(token_id)))

    def flush(self) -> str:
        """The rest, when no token will follow."""
        if self.stopped:
            return ""
        text = self._gate.push(self._stripped(self._stream.flush()))
        return text if self.stopped else text + self._gate.flush()

    def _stripped(self, text: str) -> str:
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text
