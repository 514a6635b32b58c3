"""Text as it becomes final: incomplete UTF-8 and half stop strings are held back.

The pieces joined are the answer; a piece once given is never taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\ufffd"
# a character has at most four bytes, so no more replacement characters can still turn into one
_LONGEST_INCOMPLETE = 4


def decode_ids(tokenizer: Any, ids: Sequence[int], *, control: bool = False) -> str:
    """Ids as text, nothing tidied up; control tokens are left out unless asked for."""
    options = {"skip_special_tokens": not control, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))


class TextStream:
    """Ids in, whole characters out; `before` are the ids of a text that is continued. The last piece's ids are
    decoded again with the new ones, because a tokenizer may drop the space before the first token it is given."""

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        cut = decode_ids(tokenizer, before).endswith(_REPLACEMENT) if before else False
        self._context = [] if cut else list(before)
        self._pending: list[int] = []
        self._given = ""

    def push(self, token_id: int) -> str:
        """The text that became whole with this token."""
        self._pending.append(token_id)
        return self._take(final=False)

    def flush(self) -> str:
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
            self._given = max(self._given, ready, key=len)
        return piece


class StopGate:
    """Holds back text that may be the beginning of a stop string; none is empty."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped: str | None = None

    def push(self, text: str) -> str:
        """The text that no stop string can take back; all before a stop string that is now complete."""
        self._held += text
        found = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            place, self.stopped = min(found)
            text, self._held = self._held[:place], ""
            return text
        at = 0  # where the longest end is that a stop string begins with
        while at < len(self._held) and not any(stop.startswith(self._held[at:]) for stop in self._stops):
            at += 1
        text, self._held = self._held[:at], self._held[at:]
        return text

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


class Detokenizer:
    """A TextStream behind a StopGate; `strip_start` leaves out white space at the start."""

    def __init__(
        self, tokenizer: Any, stops: Sequence[str], strip_start: bool = False, before: Sequence[int] = ()
    ) -> None:
        self._stream = TextStream(tokenizer, before)
        self._gate = StopGate(stops)
        self._strip = strip_start

    @property
    def stopped(self) -> str | None:
        """The stop string that is complete; None where none is."""
        return self._gate.stopped

    def push(self, token_id: int) -> str:
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
