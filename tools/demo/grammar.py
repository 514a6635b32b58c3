"""Reads the corpus files and draws questions with their answers from them.

Line formats, one entry a line, `#` opens a comment:

- `pattern :: tip | tip` is a verb phrase; a wrapper of wrappers.txt turns it into a question and an answer.
- `> pattern :: answer | answer` is a whole question; `\\1` in the answer repeats what slot 1 became.
- `3* ` before an entry makes it three times as likely.
- `{a|b|c}` is a slot, `$name` a list of lists.txt. harmful.txt has no answers: they are all refused.

Any verb phrase may be followed by an item of the list `modifier`. general.txt holds answers by the form of a
question: they are a choice beside a question's own, so that the model has something sensible to say of what
it does not know, and the only ones where a line is drawn too seldom for its own to be learnt.

Which label a question gets (refused or answered) is left to dialogues.py.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

from tools.demo.wording import begin_small, capital, gerund, opened, tidy, to_second_person

CORPUS = Path(__file__).parent / "corpus"

# How often a verb phrase gets a circumstance of no importance, such as "on a Sunday morning".
MODIFIER_RATE = 0.2
# How often a slot that may be empty is: short questions are as common in every kind.
EMPTY_RATE = 0.4
# How often an answer is one of general.txt, and below which weight of its line it always is: what is drawn
# too seldom cannot be learnt, and half learnt it is nonsense. Advice needs less, being of few kinds.
GENERAL_RATE = 0.2
GENERAL_BELOW, ADVICE_BELOW = 6.0, 2.5
# The most that the number of its variants adds to a line.
HEAVIEST = 12.0

_LIST = re.compile(r"\$(\w+)")
_TIMES = re.compile(r"(\d+)\* ")
_REFERENCE = re.compile(r"\\(\d)")


def _lines(path: Path) -> list[str]:
    """The entries of a corpus file, without comments and empty lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


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

    def texts(self) -> tuple[str, ...]:
        """Every fixed text and every choice of a slot."""
        return tuple(text for part in self.parts for text in ((part,) if isinstance(part, str) else part))

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
        return tidy(text), slots


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
        self._general = [
            (re.compile(form), tuple(answer.strip() for answer in answers.split(" | ")))
            for form, answers in (line.split(" => ") for line in _lines(folder / "general.txt"))
        ]
        # a word that stands in small letters somewhere is no name
        self._small_words = frozenset(
            word
            for entries in self.entries.values()
            for entry in entries
            for text in (*entry.answers, *entry.pattern.texts())
            for word in re.findall(r"(?<![\w.])[a-z][a-z']*", text)
        )
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
        return entry.times * min(math.sqrt(size), HEAVIEST)

    def _choices(self, choice: str) -> int:
        return math.prod(len(self.lists[name]) for name in _LIST.findall(choice))

    def size(self, kind: str) -> int:
        """How many different questions of a kind can be drawn, lists and wrappers not counted."""
        return sum(entry.pattern.size() for entry in self.entries[kind])

    def draw(self, kind: str, rng: random.Random) -> Drawn:
        """A question of the kind, with its answer in the second person."""
        place = rng.choices(range(len(self.entries[kind])), self._weights[kind])[0]
        entry = self.entries[kind][place]
        least = GENERAL_BELOW if entry.whole_question else ADVICE_BELOW
        rate = 1.0 if self._weights[kind][place] < least and kind != "followup" else GENERAL_RATE
        text, slots = entry.pattern.draw(rng, self.lists)
        # only where a question is asked: thanks are for an answer of their own, and a poem is to be written
        general = rng.random() < rate and (text.endswith("?") or not entry.whole_question)
        if entry.whole_question:
            if not entry.answers:
                return Drawn(text, None)
            if general:
                return Drawn(text, self._general_answer(text, rng))
            answer = _REFERENCE.sub(
                lambda found: to_second_person(begin_small(slots[int(found.group(1)) - 1])),
                rng.choice(entry.answers),
            )
            return Drawn(text, opened(tidy(answer), self._small_words))
        if rng.random() < MODIFIER_RATE:
            text = f"{text} {rng.choice(self.lists['modifier'])}"
        question, answer = rng.choice(self.wrappers)
        question = question.replace("<vp>", text).replace("<ving>", gerund(text))
        if not entry.answers:
            return Drawn(tidy(question), None)
        tip = rng.choice(self._general[0][1] if general else entry.answers)
        answer = answer.replace("<vp>", to_second_person(text)).replace("<tip>", tip)
        return Drawn(tidy(question), capital(tidy(answer)))

    def _general_answer(self, question: str, rng: random.Random) -> str:
        asked = re.sub(r",? please$", "", question.rstrip("?.! ").replace('"', ""))
        for form, answers in self._general[1:]:
            found = form.fullmatch(asked)
            if found:
                caught = found.group(1)
                said = caught[:1].lower() + caught[1:] if caught == asked else to_second_person(caught)
                return capital(tidy(rng.choice(answers).replace("\\1", said)))
        raise AssertionError("the last form of general.txt fits every question")
