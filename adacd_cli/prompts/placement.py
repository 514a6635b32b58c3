"""Where a stream's contrast prompt p* stands in the conversation: one strategy for each placement.

A strategy lays out the messages and checks its invariant on the rendered text; that the template did what it should
is never assumed. All keep p* out of the base stream's prompt, and the user's words, their own system text and the
generation prompt in both."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from adacd_cli.prompts.prompts import shared_length
from adacd_cli.prompts.templates import Turn, last_user

# what templates take out of a message or change in it: white space, and the flags that switch thinking
_LOOSE = re.compile(r"\s+|/no_?think|/think", re.IGNORECASE)


@dataclass(frozen=True)
class Rendered:
    """One stream's rendered text, compared loosely: white space, thinking flags and letter case do not count."""

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
        """Whether this is `bare` with a text inserted right after (or before) an occurrence of the words. Nothing
        else may differ, to the letter. Loosely compared, the inserted text must be `added`; and what both share up
        to it (after) or from it on (before) must include the words."""
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


@dataclass(frozen=True)
class Said:
    """The conversation as it is rendered, its control tokens hidden; at least one turn is the user's. `system` is
    the user's own system text, "" for none."""

    turns: tuple[Turn, ...]
    system: str = ""

    @property
    def question(self) -> str:
        return self.turns[last_user(self.turns)].content

    def asking(self, question: str) -> Said:
        """The same with another text as the last user message."""
        place = last_user(self.turns)
        turn = replace(self.turns[place], content=question)
        return replace(self, turns=(*self.turns[:place], turn, *self.turns[place + 1 :]))

    def messages(self, *, folded: bool) -> tuple[Turn, ...]:
        """The messages for the template; `folded`: the system text in front of the first user message."""
        if not self.system:
            return self.turns
        if not folded:
            return Turn("system", self.system), *self.turns
        place = next(place for place, turn in enumerate(self.turns) if turn.role == "user")
        first = replace(self.turns[place], content=join_texts(self.system, self.turns[place].content))
        return *self.turns[:place], first, *self.turns[place + 1 :]

    def plain(self) -> str:
        """Plain text for a model without a chat template."""
        return join_texts(self.system, *(turn.content for turn in self.turns))

    def find_fault(self, rendered: Rendered) -> str | None:
        """What the chat template does wrong with the conversation; None when nothing is."""
        if not cannot_be_found(self.system):
            elsewhere = sum(Rendered(turn.content).count(self.system) for turn in self.turns)
            if rendered.count(self.system) <= elsewhere:
                return "leaves the system message out of the prompt"
        return None if rendered.holds(self.question) else "leaves the user's message out of the prompt"


def join_texts(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


class Placement:
    """Where p* stands: in the system message, before the user's own; folded with it in front of the first user
    message.

    Attributes:
        name: as the setting `contrast_placement` takes it.
        recurs: as `Prompt.recurs`.
        forks: whether the prompt is the same as without p* up to the end of the user's words.
    """

    name, recurs, forks = "system", True, False

    def place(self, said: Said, contrast: str) -> Said:
        """The conversation with p* in it."""
        return replace(said, system=join_texts(contrast, said.system))

    def find_fault(self, bare: Rendered, other: Rendered, said: Said, contrast: str) -> str | None:
        """What the chat template does wrong, with {} where p* is to be named; None when nothing is. `bare` is the
        prompt without p*, with which nothing is wrong; `other` the prompt with p*."""
        if bare.text == other.text:
            return "gives the same prompt with and without the {}"
        if other.count(contrast) <= bare.count(contrast):
            return "leaves the {} out of the prompt"
        return self._find_own_fault(bare, other, said, contrast)

    def _find_own_fault(self, bare: Rendered, other: Rendered, said: Said, contrast: str) -> str | None:
        fault = said.find_fault(other)
        if fault is None and not bare.ends_like(other, said.question):
            return "ends the prompts with and without the {} in different generation prompts"
        return fault


class UserPlacement(Placement):
    """In the last user message, a blank line before or after the user's words. The prompt is to the letter the one
    without p*, but for the insertion of p* there."""

    recurs = False

    def __init__(self, name: str, *, after: bool) -> None:
        self.name, self.forks = name, after

    def place(self, said: Said, contrast: str) -> Said:
        parts = (said.question, contrast) if self.forks else (contrast, said.question)
        return said.asking(join_texts(*parts))

    def _find_own_fault(self, bare: Rendered, other: Rendered, said: Said, contrast: str) -> str | None:
        if other.adds(contrast, bare, said.question, after=self.forks):
            return None
        return f"does not simply put the {{}} {'after' if self.forks else 'before'} the user's words"


PLACEMENTS: dict[str, Placement] = {
    "system": Placement(),
    "user-start": UserPlacement("user-start", after=False),
    "user-end": UserPlacement("user-end", after=True),
}
"""The placements by name."""
