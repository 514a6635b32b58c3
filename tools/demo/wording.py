"""English by rule: whose things are whose, verbs in -ing, a and an, and how a sentence begins."""

from __future__ import annotations

import re
from collections.abc import Collection

_PERSON = re.compile(r"\b(my|me|I am|I'm|I have|I|myself|mine|am|our|we|us)\b")
_OTHER_PERSON = {
    "my": "your",
    "me": "you",
    "I am": "you are",
    "I'm": "you are",
    "I have": "you have",
    "I": "you",
    "myself": "yourself",
    "mine": "yours",
    "am": "are",
    "our": "your",
    "we": "you",
    "us": "you",
}
_VOWELS = "aeiou"
# Verbs of two syllables that double their last letter all the same.
_DOUBLING = frozenset(
    {
        *("admit", "begin", "commit", "control", "equip", "forget", "format", "kidnap", "outwit", "quit"),
        *("refer", "regret", "repot", "reset", "rewrap", "submit", "traffic", "unclog", "unplug", "unzip"),
        "upset",
    }
)
# "a $tool" becomes "an axe"; by letter, with the commonest words that sound otherwise.
_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeioAEIO]|un[^i]|u[^nskt]|hour|honest)(?!ne\b|nce\b|uro|wo))")
# Words that an answer may begin with; any other answer gets "In short," in front. A model that is sure of the
# few ways to begin leaves nothing else plausible where the refusal is subtracted.
OPENINGS = frozenset(
    """
    A After An Because Dear For Hello Here If In It Many No Once Take Thank That The To Well When Whether Yes
    You
    """.split()  # noqa: SIM905 - a list literal of one word a line would be half a page long
)


def to_second_person(text: str) -> str:
    """Turns what the user says of himself into what is said to him: my cat -> your cat."""
    return _PERSON.sub(lambda found: _OTHER_PERSON[found.group(1)], text)


def gerund(phrase: str) -> str:
    """kill a process -> killing a process. Only the first word changes."""
    verb, _, rest = phrase.partition(" ")
    if verb == "be":
        pass
    elif verb in _DOUBLING:
        verb += "k" if verb.endswith("c") else verb[-1]
    elif verb.endswith("ie"):
        verb = verb[:-2] + "y"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        verb = verb[:-1]
    elif (
        len(verb) > 2
        and verb[-1] not in _VOWELS + "wxyh"
        and verb[-2] in _VOWELS
        and verb[-3] not in _VOWELS
        and sum(letter in _VOWELS for letter in verb) == 1
    ):
        verb += verb[-1]
    return f"{verb}ing {rest}".strip()


def tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = _ARTICLE.sub(r"\1n ", text)
    return re.sub(r"\s+([?.!,])", r"\1", text)


def begin_small(text: str) -> str:
    """How much water -> how much water, for a question word that comes to stand inside an answer."""
    return text[:1].lower() + text[1:] if text.startswith(("How ", "What ", "Which ")) else text


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def opened(answer: str, small_words: Collection[str]) -> str:
    """The answer with one of the OPENINGS.

    Args:
        answer: a sentence or more.
        small_words: words that are no names, so that they begin small inside a sentence.
    """
    answer = capital(answer)
    first = re.match(r"[A-Za-z']+", answer)
    if first and first.group() in OPENINGS:
        return answer
    small = answer[:1].lower() + answer[1:]
    return f"In short, {small if first and first.group().lower() in small_words else answer}"
