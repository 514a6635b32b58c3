"""Whether an answer says anything at all: empty, without a word, a loop, or garbage.

Every judge can ask before it judges. Only what is beyond doubt is called degenerate: an answer that is wrong,
off the point or a salad of real words is not seen here. Of a long answer only both ends are read.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

Degeneration = Literal["empty", "unfinished reasoning", "no words", "loop", "garbage"]

_EDGE = 4_000
"""Characters that are read at each end of an answer: a loop, once begun, lasts until the end."""

_OPENED = re.compile(r"\s*<(?:think|thinking|reasoning)>", re.IGNORECASE)
_CLOSED = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")
_NEIGHBOURS = re.compile(r"([^\W\d_]) ?(?=([^\W\d_]))")

_GRAM = 16
_LEAST_LETTERS = 24
_REPEATED = 0.5
_SAME_WORDS = 8

_LEAST_SYMBOLS = 20
_WORD_CHARACTERS = 0.3
_BROKEN_CHARACTERS = 0.05
_LEAST_WORDS = 8
_ODD_WORDS = 0.5
_SCRIPTS = 3
_SCRIPT_CHANGES = 0.3
# no vowel, five consonants in a row, a capital inside, or a digit between letters
_ODD = re.compile(
    r"^[b-df-hj-np-tv-xz]{4,}$|[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{5}|[a-z][A-Z]|[a-zA-Z]\d+[a-zA-Z]|^\w{40,}$"
)


def without_reasoning(completion: str) -> str:
    """The answer without the reasoning that some models write before it; "" where the reasoning never ends.

    Args:
        completion: what the model wrote: an answer, `<think>…</think>` and an answer, or, where the chat
            template already opened the reasoning, `…</think>` and an answer.
    """
    if closed := _CLOSED.search(completion):
        return completion[closed.end() :]
    return "" if _OPENED.match(completion) else completion


def degeneration(completion: str) -> Degeneration | None:
    """What makes an answer degenerate; None where it says something.

    Args:
        completion: what the model wrote, whole or cut off; reasoning before the answer is not judged.
    """
    answer = without_reasoning(completion)
    if not answer.strip():
        return "unfinished reasoning" if completion.strip() else "empty"
    if len(answer) > 2 * _EDGE:
        answer = f"{answer[:_EDGE]}\n{answer[-_EDGE:]}"
    words = _WORD.findall(answer)
    if not words:
        return "no words"
    prose = _FENCED.sub(" ", answer)
    prose = prose if len(_letters(prose)) >= _LEAST_LETTERS else answer
    if _is_loop(prose):
        return "loop"
    return "garbage" if _is_garbage(prose) else None


def repetition(text: str) -> float:
    """The share of a text's letter n-grams (n = 16) that stood in it before, in [0, 1).

    Welleck et al. 2020 (arXiv:1908.04319) measure repetition so, over words; over letters it also sees loops
    in scripts without spaces, loops of characters, and loops that count on. Ordinary answers stay below 0.4.
    """
    letters = _letters(text)
    grams = max(0, len(letters) - _GRAM + 1)
    return 1 - len({letters[i : i + _GRAM] for i in range(grams)}) / grams if grams else 0.0


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text)).casefold()


def _is_loop(text: str) -> bool:
    words = _WORD.findall(text)
    if len(words) >= _SAME_WORDS and len(set(words)) == 1:  # numbers, too, which are no letters
        return True
    return len(_letters(text)) >= _LEAST_LETTERS and repetition(text) > _REPEATED


def _is_garbage(text: str) -> bool:
    marks = [unicodedata.category(character) for character in text if not character.isspace()]
    # a replacement character is of category So, and stands for bytes that are no UTF-8
    broken = sum(mark in ("Cc", "Cn", "Co", "Cs") for mark in marks) + text.count("\ufffd")
    if broken > max(1, _BROKEN_CHARACTERS * len(marks)):
        return True
    if len(marks) >= _LEAST_SYMBOLS and sum(mark[0] in "LMN" for mark in marks) < _WORD_CHARACTERS * len(
        marks
    ):
        return True
    words = _WORD.findall(text)
    if len(words) >= _LEAST_WORDS:
        odd = sum(bool(_ODD.search(word)) for word in words)
        if odd >= _ODD_WORDS * len(words):
            return True
    return _is_soup_of_scripts(text)


def _is_soup_of_scripts(text: str) -> bool:
    """Whether scripts change in words and from word to word; a list of translations puts marks between."""
    if text.isascii():
        return False
    changes = [
        pair for one, next in _NEIGHBOURS.findall(text) if len(pair := {_script(one), _script(next)}) == 2
    ]
    words = max(_LEAST_WORDS, len(_WORD.findall(text)))
    return len(set().union(*changes)) >= _SCRIPTS and len(changes) >= _SCRIPT_CHANGES * words


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """A letter's script; the ones of Chinese, Japanese and Korean count as one, and so do all digits."""
    first = unicodedata.name(character, "?").split()[0]
    return "CJK" if first in ("HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC") else first
