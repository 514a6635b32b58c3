"""Whether an answer says anything at all: empty, without a word, a loop, or garbage. Every judge can ask before it
judges. Only what is beyond doubt is called degenerate: an answer that is wrong, off the point or a salad of real
words is not seen here. Of a long answer only both ends are read."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

Degeneration = Literal["empty", "only reasoning", "no words", "loop", "garbage"]

_EDGE = 4_000  # characters that are read at each end of an answer: a loop, once begun, lasts until the end

_FENCED = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_WORD = re.compile(r"[^\W_]+")
_NEIGHBOURS = re.compile(r"([^\W\d_]) ?(?=([^\W\d_]))")

# A loop: more than half of it has been said before.
_GRAM, _LEAST_LETTERS = 16, 24
_REPEATED, _SAME_WORDS = 0.5, 8

# Garbage: broken characters (an answer that was cut off may end in two of them), hardly a letter, words that
# no language has, or scripts that change all the time.
_FEW, _BROKEN = 2, 0.01
_LEAST_MARKS, _LETTERS_AND_DIGITS = 20, 0.3
_LEAST_WORDS, _ODD_WORDS = 8, 0.5
_ODD = re.compile(
    r"^[b-df-hj-np-tv-xz]{4,}$|[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{5}"  # no vowel, or five consonants in a row
    r"|[a-z][A-Z]|[a-zA-Z]\d+[a-zA-Z]|^[a-zA-Z0-9]{40,}$"  # a capital or a digit inside, or far too long
)
_FRAMES = frozenset(" \t\r\n|-_=*#")
_SCRIPTS, _SCRIPT_CHANGES = 3, 0.3


def degeneration(completion: str, answer: str | None = None) -> Degeneration | None:
    """What makes an answer degenerate, whole or cut off; None where it says something. `answer` is the completion
    without thinking and wrappers, which are not judged, where it has any."""
    answer = completion if answer is None else answer
    if not answer.strip():
        return "only reasoning" if completion.strip() else "empty"
    if len(answer) > 2 * _EDGE:
        answer = f"{answer[:_EDGE]}\n{answer[-_EDGE:]}"
    if not _WORD.search(answer):
        return "no words"
    prose = _FENCED.sub(" ", answer)
    prose = prose if len(_letters(prose)) >= _LEAST_LETTERS else answer
    if _is_loop(prose):
        return "loop"
    return "garbage" if _is_garbage(prose) else None


def repetition(text: str) -> float:
    """The share of a text's letter n-grams (n = 16) that stood in it before, in [0, 1). Welleck et al. 2020
    (arXiv:1908.04319) measure repetition so, over words; over letters it also sees loops in scripts without spaces,
    loops of characters, and loops that count on. Ordinary answers stay below 0.4."""
    letters = _letters(text)
    grams = max(0, len(letters) - _GRAM + 1)
    return 1 - len({letters[i : i + _GRAM] for i in range(grams)}) / grams if grams else 0.0


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text)).casefold()


def _is_loop(text: str) -> bool:
    words = _WORD.findall(text)
    same = len(words) >= _SAME_WORDS and len(set(words)) == 1  # numbers, too, which are no letters
    return same or (len(_letters(text)) >= _LEAST_LETTERS and repetition(text) > _REPEATED)


def _is_garbage(text: str) -> bool:
    # the frames of tables and headings are no symbols that want to say something
    kinds = [unicodedata.category(character) for character in text if character not in _FRAMES]
    # a replacement character is a symbol, and stands for bytes that are no UTF-8
    broken = sum(kind in ("Cc", "Co", "Cs") for kind in kinds) + text.count("\ufffd")
    if broken > max(_FEW, _BROKEN * len(kinds)):
        return True
    legible = sum(kind[0] in "LMN" for kind in kinds)
    if len(kinds) >= _LEAST_MARKS and legible < _LETTERS_AND_DIGITS * len(kinds):
        return True
    words = _WORD.findall(text)
    odd = sum(bool(_ODD.search(word)) for word in words)
    return (len(words) >= _LEAST_WORDS and odd >= _ODD_WORDS * len(words)) or _is_soup_of_scripts(text)


def _is_soup_of_scripts(text: str) -> bool:
    """Whether scripts change in words and from word to word; a list of translations puts marks between."""
    if text.isascii():
        return False
    pairs = ({_script(one), _script(other)} for one, other in _NEIGHBOURS.findall(text))
    changes = [pair for pair in pairs if len(pair) > 1]
    words = max(_LEAST_WORDS, len(_WORD.findall(text)))
    return len(set().union(*changes)) >= _SCRIPTS and len(changes) >= _SCRIPT_CHANGES * words


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """A letter's script; those of Chinese, Japanese and Korean, which are written together, count as one."""
    first = unicodedata.name(character, "?").split()[0]
    return "CJK" if first in ("HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC") else first
