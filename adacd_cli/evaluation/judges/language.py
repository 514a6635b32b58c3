"""Which language an answer is in, as far as the `keyword` judge must know: one its rules read, or another.

By script, then by frequent words (keyword.yaml); only where there are none of these by letters. What is too
short or no prose (names, numbers, code) counts as English.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from adacd_cli.evaluation.judges.rules import rule_book

READ = 1_500
"""Characters of an answer that are read: a language shows early."""

_NO_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]{1,80}>|[\"“«][^\"”»\n]{0,400}[\"”»]", re.DOTALL
)
_SCRIPTS = {
    "la": re.compile(r"[A-Za-zÀ-ɏḀ-ỿ]"),
    "zh": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ja": re.compile(r"[\u3041-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7af]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "ar": re.compile(r"[\u0620-\u064a\u066e-\u06d3]"),
}
_WEIGHTS = {"zh": 3, "ja": 2, "ko": 2}
"""How many letters a character of a denser script stands for."""
# letters of a script that the languages with rules do not have: of Persian and Urdu, of Ukrainian, Serbian, …
_FOREIGN = {
    "ar": re.compile(r"[پچژگکیٹڈڑےہھںۆێ]"),
    "ru": re.compile(r"[іїєґўјљњћђџќѓѕәғқңөұүһ]", re.IGNORECASE),
    "la": re.compile(r"[\u0100-\u0151\u0154-\u0177\u0179-\u024f\u1e00-\u1efføØðÐþÞýÝ]"),
}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_FEWEST_WORDS = 3
_FUNCTION_WORDS = 0.12
_FOREIGN_LETTERS = 0.04
_LOWER_WORDS = 5
_ENGLISH_TRIGRAMS = 0.34


def language_of(answer: str) -> str | None:
    """The code of an answer's language, `en` where nothing else shows, None for one that no rules know.

    Args:
        answer: what `wording.unwrap` gives.
    """
    prose = _NO_PROSE.sub(" ", answer[: 2 * READ])[:READ]
    counts = {code: len(script.findall(prose)) * _WEIGHTS.get(code, 1) for code, script in _SCRIPTS.items()}
    letters = sum(map(str.isalpha, prose))
    others = letters - sum(count // _WEIGHTS.get(code, 1) for code, count in counts.items())
    main = max(counts, key=counts.__getitem__)
    if 2 * others > letters:
        return None
    if main in ("zh", "ja"):
        return "ja" if counts["ja"] * 10 >= counts["zh"] else "zh"
    foreign = len(_FOREIGN[main].findall(prose)) if main in _FOREIGN else 0
    if main in ("ar", "ru"):
        share = foreign >= 2 and foreign >= _FOREIGN_LETTERS / 2 * counts[main]
        return None if share else _by_words(prose, main)
    return _latin(prose, foreign / max(1, counts["la"])) if main == "la" else main


def _by_words(prose: str, default: str) -> str | None:
    found = _votes(tuple(word.lower() for word in _WORD.findall(prose)))
    best, hits = max(found.items(), key=lambda item: item[1], default=(default, 0))
    return None if best in rule_book().other_languages and hits > found[default] + 1 else default


def _latin(prose: str, foreign: float) -> str | None:
    written = _WORD.findall(prose)
    words = tuple(word.lower() for word in written)
    if len(words) < _FEWEST_WORDS:
        return None if foreign > 3 * _FOREIGN_LETTERS and len(words) > 1 else "en"
    if len(words) > _FEWEST_WORDS and 2 * prose.count(",") >= len(words):  # a list of names or words
        return "en"
    found = _votes(words)
    best, hits = max(found.items(), key=lambda item: (item[1], item[0] == "en"), default=("en", 0))
    book = rule_book()
    if hits >= max(1, _FUNCTION_WORDS * len(words)):
        unknown = best in book.other_languages
        return None if unknown and (hits > 1 or foreign or not found["en"]) else ("en" if unknown else best)
    lower = [word for word in written if word.islower()]
    if foreign > _FOREIGN_LETTERS and lower:
        return None
    grams = [f"_{word}_"[i : i + 3] for word in lower for i in range(len(word))]
    english = sum(gram in book.english_trigrams for gram in grams)
    if len(lower) < _LOWER_WORDS or english >= _ENGLISH_TRIGRAMS * len(grams):
        return "en"
    return best if hits and best not in book.other_languages else None


def _votes(words: tuple[str, ...]) -> Counter[str]:
    """How many of the words are frequent in each language."""
    return Counter(code for word in words for code in _languages().get(word, ()))


@lru_cache(maxsize=1)
def _languages() -> dict[str, tuple[str, ...]]:
    """The languages in which a word is frequent."""
    found: dict[str, tuple[str, ...]] = {}
    book = rule_book()
    lists = {"en": book.english_words, **book.languages_words, **book.other_languages}
    for code, words in lists.items():
        for word in words:
            found[word] = (*found.get(word, ()), code)
    return found
