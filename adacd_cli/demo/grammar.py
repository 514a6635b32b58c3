"""Reads the corpus files and draws questions with their answers from them.

Line formats, one entry a line, `#` opens a comment:

- `pattern :: tip | tip` is a verb phrase; a wrapper of wrappers.txt turns it into a question and an answer.
- `> pattern :: answer | answer` is a whole question; `\\1` in the answer repeats what slot 1 became.
- `3* ` before an entry makes it three times as likely.
- `{a|b|c}` is a slot, `$name` a list of lists.txt. harmful.txt has no answers: they are all refused.

Any verb phrase may be followed by an item of the list `modifier`.

Which label a question gets (refused or answered) is left to dialogues.py.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

# How often a verb phrase gets a circumstance of no importance, such as "on a Sunday morning".
MODIFIER_RATE = 0.2
# How often a slot that may be empty is: short questions are as common in every kind.
EMPTY_RATE = 0.4

_LIST = re.compile(r"\$(\w+)")
_TIMES = re.compile(r"(\d+)\* ")
_REFERENCE = re.compile(r"\\(\d)")
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


def _lines(path: Path) -> list[str]:
    """The entries of a corpus file, without comments and empty lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def to_second_person(text: str) -> str:
    """Turns what the user says of himself into what is said to him: my cat -> your cat."""
    return _PERSON.sub(lambda found: _OTHER_PERSON[found.group(1)], text)


def gerund(phrase: str) -> str:
    """kill a process -> killing a process. Only the first word changes."""
    verb, _, rest = phrase.partition(" ")
    if verb.endswith("ie"):
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


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"\s+([?.!,])", r"\1", text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with slots. `parts` alternates fixed text and the choices of a slot."""

    parts: tuple[str | tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Splits `text` at its slots; a `$name` outside braces is fixed text and drawn later."""
        parts: list[str | tuple[str, ...]] = []
        for index, piece in enumerate(re.split(r"\{([^{}]*)\}", text)):
            parts.append(tuple(piece.split("|")) if index % 2 else piece)
        return cls(tuple(parts))

    def size(self) -> int:
        """How many texts the slots make, lists counted once."""
        return math.prod(len(part) for part in self.parts if isinstance(part, tuple))

    def draw(self, rng: random.Random, lists: dict[str, tuple[str, ...]]) -> tuple[str, list[str]]:
        """One text, and what each slot became."""
        text, slots = "", []
        for part in self.parts:
            if isinstance(part, str):
                chosen = part
            elif "" in part and rng.random() < EMPTY_RATE:
                chosen = ""
            else:
                chosen = rng.choice(part)
            chosen = _LIST.sub(lambda found: rng.choice(lists[found.group(1)]), chosen)
            text += chosen
            if not isinstance(part, str):
                slots.append(chosen)
        return _tidy(text), slots


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a corpus file. `answers` is empty where everything is refused."""

    pattern: Pattern
    answers: tuple[str, ...]
    whole_question: bool
    times: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question and its answer; the answer is None where there is none but a refusal."""

    question: str
    answer: str | None


def _begin_small(text: str) -> str:
    """How much water -> how much water, for a question word that comes to stand inside an answer."""
    return text[:1].lower() + text[1:] if text.startswith(("How ", "What ", "Which ")) else text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


class Grammar:
    """All entries by kind: `trigger`, `harmful`, `neutral`, and `followup` for second turns."""

    def __init__(self, folder: Path = CORPUS) -> None:
        self.lists: dict[str, tuple[str, ...]] = {}
        for line in _lines(folder / "lists.txt"):
            name, _, items = line.partition(" = ")
            self.lists[name.strip()] = tuple(item.strip() for item in items.split(" | "))
        self.entries = {
            kind: [entry for path in sorted(folder.glob(f"{kind}*.txt")) for entry in self._read(path)]
            for kind in ("trigger", "harmful", "neutral", "followup")
        }
        self._weights = {
            kind: [self._weight(entry) for entry in entries] for kind, entries in self.entries.items()
        }
        self.wrappers = [
            (question.strip(), answer.strip())
            for question, _, answer in (line.partition("::") for line in _lines(folder / "wrappers.txt"))
        ]
        self.systems: dict[str, list[str]] = {"ordinary": [], "refuse": []}
        section = "ordinary"
        for line in _lines(folder / "systems.txt"):
            if line.startswith("["):
                section = line.strip("[]")
            else:
                self.systems[section].append(line)

    def _read(self, path: Path) -> list[Entry]:
        entries = []
        for line in _lines(path):
            found = _TIMES.match(line)
            times = int(found.group(1)) if found else 1
            line = line[found.end() :] if found else line
            whole = line.startswith(">")
            pattern, _, answers = line.removeprefix(">").partition("::")
            texts = tuple(answer.strip() for answer in answers.split(" | ") if answer.strip())
            entries.append(Entry(Pattern.parse(pattern.strip()), texts, whole, times))
        return entries

    def _weight(self, entry: Entry) -> float:
        # The root keeps a line with thousands of variants from drowning the hand-written single ones.
        size = 1.0
        for part in entry.pattern.parts:
            if isinstance(part, tuple):
                size *= sum(self._choices(choice) for choice in part)
        return entry.times * min(math.sqrt(size), 40.0)

    def _choices(self, choice: str) -> int:
        return math.prod(len(self.lists[name]) for name in _LIST.findall(choice))

    def size(self, kind: str) -> int:
        """How many different questions of a kind can be drawn, lists and wrappers not counted."""
        return sum(entry.pattern.size() for entry in self.entries[kind])

    def draw(self, kind: str, rng: random.Random) -> Drawn:
        """A question of the kind, with its answer in the second person."""
        entry = rng.choices(self.entries[kind], self._weights[kind])[0]
        text, slots = entry.pattern.draw(rng, self.lists)
        if entry.whole_question:
            if not entry.answers:
                return Drawn(text, None)
            answer = _REFERENCE.sub(
                lambda found: to_second_person(_begin_small(slots[int(found.group(1)) - 1])),
                rng.choice(entry.answers),
            )
            return Drawn(text, _capital(_tidy(answer)))
        if rng.random() < MODIFIER_RATE:
            text = f"{text} {rng.choice(self.lists['modifier'])}"
        question, answer = rng.choice(self.wrappers)
        question = question.replace("<vp>", text).replace("<ving>", gerund(text))
        if not entry.answers:
            return Drawn(_tidy(question), None)
        answer = answer.replace("<vp>", to_second_person(text)).replace("<tip>", rng.choice(entry.answers))
        return Drawn(_tidy(question), _capital(_tidy(answer)))
