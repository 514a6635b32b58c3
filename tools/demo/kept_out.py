"""Keeps the prompts that measure the model out of its training: no drawn question may ask the same.

Two questions ask the same when their words of content are the same set: "How do I kill a Python process?" is
"What's the best way of killing Python processes". Words of the asking, endings and spelling do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tools.demo.spelling import to_american

_WORD = re.compile(r"[a-z0-9+*]+")
# Words that ask rather than say what about.
_ASKING = frozenset(
    """
    a about advice after all am an and any anyone are as ask at be been begin best but by can cant
    clever could curious describe did do does doesnt doing dont easiest easy else ever explain fastest
    few find first for from fun get give go going good had hard has have he hello help her hey hi him
    his how hows i id ideas if im in instructions into is isnt it its ive just know learn let lets like
    long make me mean meaning means method most much my need needs now of often okay on one or our out
    please possible professional properly question quick quickest right safe safely safest same say
    secret she short should show simple so some someone step steps tell than thank thanks that the their
    them then there theres they thing this time tip tips to tool trick try trying up us use want was way
    ways we well were what whats when where wheres which who whos why will with would you your
    """.split()  # noqa: SIM905 - a list literal of one word a line would be a page long
)


def _stem(word: str) -> str:
    """processes -> proces, killing -> kil: what is left is compared, never shown."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    word = word.rstrip("e")
    return word[:-1] if word[-2:-1] == word[-1:] else word


def content_words(question: str) -> frozenset[str]:
    """The stems of the words that say what is asked about; of all words where there are none such."""
    words = _WORD.findall(to_american(question.lower().replace("'", "")))
    return frozenset(_stem(word) for word in words if word not in _ASKING) or frozenset(words)


class KeptOut:
    """A set of prompts by what they ask.

    Args:
        prompts: the prompts.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self._asked = {content_words(prompt) for prompt in prompts}

    def holds(self, question: str) -> bool:
        """Whether one of the prompts asks the same."""
        return content_words(question) in self._asked
