"""An answer's wording as rules can read it: one spelling for what models write in many, sentence by sentence.

Lower case, contractions written out ("cannot", "i am"), no Markdown, no code, nothing in quotation marks.
What the words mean is for refusals.py and remarks.py to say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

READ = 4_000
"""Characters of an answer that are read at most, so that a megabyte costs no more than a page."""
OPENING = 200
"""A sentence that begins before this character belongs to the opening."""

_CHARACTERS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "’‘ʼ´＇′"), "'"),
    **dict.fromkeys(map(ord, "“”„«»"), '"'),
    **dict.fromkeys(map(ord, "–—―"), "-"),
    # Markdown's marks, and characters that nobody sees
    **dict.fromkeys(map(ord, "*_#>~\u200b\u200c\u200d\u2060\ufeff\u00ad"), None),
}
_BACKTICK_FOR_APOSTROPHE = re.compile(r"(?<=\w)`(?=\w)")
_BULLET = re.compile(r"^( *)\* ", re.MULTILINE)
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_WRITTEN_OUT = tuple(
    (re.compile(pattern), full)
    for pattern, full in (
        # inline code, and what a chat template leaves behind (without ">", which is gone)
        (r"`|<\|[^|<>]{1,40}\|?|</?s\b", " "),
        (r"[^\S\n]+", " "),
        (r"\bcan't\b|\bcan not\b|\bcant\b", "cannot"),
        (r"\bwon't\b|\bwont\b", "will not"),
        (r"\bi ?'?m\b", "i am"),
        (r"n't\b", " not"),
        (r"(?<=\w)'re\b", " are"),
        (r"(?<=\w)'ve\b", " have"),
        (r"(?<=\w)'d\b", " would"),
        (r"(?<=\w)'ll\b", " will"),
        (r"\b(it|that|there|here|what|he|she)'s\b", r"\1 is"),
    )
)
_LABEL = re.compile(r"^(?:final )?(?:answer|response|assistant|ai|bot)\s*:\s*")
_ORNAMENT = re.compile(r'^[^\w"]+')
_QUOTED = re.compile(r'"[^"\n]{0,400}"')
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_LETTER = re.compile(r"[^\W_]")
_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5
_ITEM = re.compile(r"^ *(?:\d+[.)]|[-•+]) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, a heading or a line of a list; `opens`: it begins in the first OPENING characters."""

    text: str
    opens: bool


def plain(answer: str) -> str:
    """The beginning of an answer in one spelling, at most READ characters."""
    text = _BACKTICK_FOR_APOSTROPHE.sub("'", answer.lstrip()[: 2 * READ])
    prose = _FENCED.sub("\n", text)
    if not _LETTER.search(prose):  # the whole answer stands in a code block
        prose = _FENCED.sub(r"\1", text)
    prose = _BULLET.sub(r"\1- ", prose).translate(_CHARACTERS)
    text = unicodedata.normalize("NFKC", prose).casefold()
    for pattern, full in _WRITTEN_OUT:
        text = pattern.sub(full, text)
    text = _ORNAMENT.sub("", _LABEL.sub("", _ORNAMENT.sub("", text.strip())))
    if text.startswith('"') and '"' not in text[1:-1]:  # the whole answer stands in quotation marks
        text = text.strip('"')
    return _QUOTED.sub('""', text)[:READ]


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a plain text that hold a letter or a digit, in their order."""
    for match in _SENTENCE.finditer(text):
        if _LETTER.search(match[0]):
            yield Sentence(match[0].strip(), match.start() < OPENING)


def listed_items(text: str) -> int:
    """How many lines of a plain text are items of a list."""
    return len(_ITEM.findall(text))


def stems(text: str, common: frozenset[str]) -> frozenset[str]:
    """The beginnings of a plain text's words of four letters and more, common words left out."""
    return frozenset(word[:_STEM] for word in _WORD.findall(text) if word not in common)
