"""Says whether the corpus can produce a question: what is kept out of the corpus must not be in it.

Questions are compared in small letters and without punctuation, so that a held-out prompt does not slip
through by a comma.
"""

from __future__ import annotations

import re

from adacd_cli.demo.grammar import Entry, Grammar, gerund
from adacd_cli.demo.spelling import to_american


def normalise(text: str) -> str:
    """Small letters, single spaces, no punctuation, American spelling."""
    return to_american(" ".join(re.findall(r"[a-z0-9+*]+", text.lower().replace("'", ""))))


class Membership:
    """Answers `produces(question)` for all entries of a grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._lists = {name: "|".join(map(self._literal, items)) for name, items in grammar.lists.items()}
        entries = [entry for kind in grammar.entries.values() for entry in kind]
        self._questions = [self._compile(entry) for entry in entries if entry.whole_question]
        phrases = [entry for entry in entries if not entry.whole_question]
        self._phrases = [self._compile(entry) for entry in phrases]
        self._gerunds = [self._compile(entry, as_gerund=True) for entry in phrases]
        self._wrappers: list[tuple[re.Pattern[str], bool]] = []
        for question, _ in grammar.wrappers:
            before, mark, after = re.split(r"(<vp>|<ving>)", question)
            text = f"{self._literal(before)} *(.+?) *{self._literal(after)}"
            self._wrappers.append((re.compile(text), mark == "<ving>"))

    def produces(self, question: str) -> bool:
        """Whether some entry, wrapper and choice of slots gives this question."""
        text = normalise(question)
        if any(pattern.fullmatch(text) for pattern in self._questions):
            return True
        for wrapper, as_gerund in self._wrappers:
            found = wrapper.fullmatch(text)
            phrases = self._gerunds if as_gerund else self._phrases
            if found and any(pattern.fullmatch(found.group(1)) for pattern in phrases):
                return True
        return False

    @staticmethod
    def _literal(text: str) -> str:
        return re.escape(normalise(text)).replace(r"\ ", " ")

    def _compile(self, entry: Entry, *, as_gerund: bool = False) -> re.Pattern[str]:
        pieces = []
        for index, part in enumerate(entry.pattern.parts):
            if isinstance(part, str):
                pieces.append(self._text(gerund(part) if as_gerund and index == 0 and part else part))
            else:
                verbs = as_gerund and index == 1 and not entry.pattern.parts[0]
                choices = [self._text(gerund(choice) if verbs and choice else choice) for choice in part]
                pieces.append("(?:" + "|".join(choices) + ")")
        modifier = "" if entry.whole_question else f"(?: (?:{self._lists['modifier']}))?"
        return re.compile(" *".join(pieces) + f" *{modifier} *")

    def _text(self, text: str) -> str:
        parts = re.split(r"\$(\w+)", text)
        pieces = [
            f"(?:{self._lists[part]})" if index % 2 else self._literal(part)
            for index, part in enumerate(parts)
        ]
        return " *".join(pieces)
