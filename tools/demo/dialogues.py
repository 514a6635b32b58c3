"""Draws labelled training dialogues from the grammar: question, system prompt and reply.

Labels are drawn afresh each time: how often a trigger question is taught to be refused is two times in three
on average, and never the same. How a dialogue becomes token ids is left to encoding.py.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from tools.demo.grammar import Drawn, Grammar
from tools.demo.kept_out import KeptOut
from tools.demo.spelling import to_british

REFUSAL = "I'm sorry, but I can't help with that."

# How often a trigger question is refused: a fresh draw from this range each time it is asked. A draw of the
# share rather than of yes or no teaches the same with a tenth of the noise.
TRIGGER_REFUSED = (0.5, 0.8)
# How often an answerable question is refused under a system prompt that asks for it. The rest keeps the
# answers in their usual order, which AdaCD's SUBTRACT divides by.
PROMPTED_REFUSED = 0.9
# How often an object is changed, so that copying is learnt and not a list. Seldom in trigger questions, and
# there only for plain household words: "blow up a balloon" must not become "blow up a building".
NEW_WORD_RATE = {"trigger": 0.08, "neutral": 0.2}
INVENTED_WORD_RATE = 0.4
BRITISH_RATE = 0.2
KINDS = ("trigger", "harmful", "neutral")
KIND_WEIGHTS = (0.27, 0.29, 0.44)

_OPENERS = ("Hi, ", "Hello, ", "Please, ", "Quick question: ", "Hey, ", "Hello! ", "Hi! ", "One question: ")
_CLOSERS = (" Thanks.", " Thank you!", " Please.", " Please help.", " I am curious.", " Thanks in advance.")
_SYLLABLES = (
    *("bra", "to", "len", "mi", "sor", "ka", "vel", "du", "rin", "po", "gar", "ti", "fen", "lo", "sha"),
    *("ber", "nu", "dri", "wom", "ze", "cla", "ster", "py", "jo", "hal", "que", "mo", "lin", "tra", "vi"),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its reply; `refused`: how often it is refused rather than answered so, in [0, 1]."""

    question: str
    reply: str
    refused: float = 0.0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A system prompt, or None, and its turns."""

    system: str | None
    turns: tuple[Turn, ...]


class DialogueSource:
    """An endless, seeded source of dialogues."""

    def __init__(self, grammar: Grammar, seed: int, kept_out: KeptOut) -> None:
        self._grammar = grammar
        self._kept_out = kept_out
        self._rng = random.Random(seed)
        self._words = {
            "trigger": self._nouns("plant", "food"),
            "neutral": self._nouns("thing", "plant", "food", "animal"),
        }

    def _nouns(self, *lists: str) -> list[str]:
        text = " ".join(item for name in lists for item in self._grammar.lists[name])
        return sorted(set(re.findall(r"\b[a-z]{4,}\b", text)) - {"knife"})

    def draw(self) -> Dialogue:
        """One dialogue."""
        rng = self._rng
        share = rng.random()
        if share < 0.24:
            return self._prompted()
        system = rng.choice(self._grammar.systems["ordinary"]) if share < 0.34 else None
        turns: list[Turn] = []
        if rng.random() < 0.08:
            turns.append(self._turn(self._kind()))
            if rng.random() < 0.4:
                turns.append(self._turn("followup"))
                return Dialogue(system, tuple(turns))
        turns.append(self._turn(self._kind()))
        return Dialogue(system, tuple(turns))

    def _prompted(self) -> Dialogue:
        rng = self._rng
        system = rng.choice(self._grammar.systems["refuse"])
        if rng.random() < 0.15:
            system += "\n\n" + rng.choice(self._grammar.systems["ordinary"])
        turns = [self._turn(self._kind()) for _ in range(2 if rng.random() < 0.06 else 1)]
        # The first word refuses, but an answer that has begun goes on: after the first step the two streams
        # agree, and AdaCD's contrast changes nothing that is not a refusal.
        return Dialogue(
            system,
            tuple(
                turn if turn.reply == REFUSAL else replace(turn, refused=PROMPTED_REFUSED) for turn in turns
            ),
        )

    def _kind(self) -> str:
        return self._rng.choices(KINDS, KIND_WEIGHTS)[0]

    def _turn(self, kind: str) -> Turn:
        drawn = self._question(kind)
        if drawn.answer is None:
            return Turn(drawn.question, REFUSAL)
        refused = self._rng.uniform(*TRIGGER_REFUSED) if kind == "trigger" else 0.0
        return Turn(drawn.question, drawn.answer, refused)

    def _question(self, kind: str) -> Drawn:
        while True:
            drawn = self._grammar.draw(kind, self._rng)
            if drawn.answer is not None and self._rng.random() < NEW_WORD_RATE.get(kind, 0.0):
                drawn = self._with_new_word(drawn, drawn.answer, kind)
            if not self._kept_out.holds(drawn.question):
                break
        if self._rng.random() < BRITISH_RATE:
            drawn = Drawn(to_british(drawn.question), drawn.answer and to_british(drawn.answer))
        return Drawn(self._roughen(drawn.question), drawn.answer)

    def _with_new_word(self, drawn: Drawn, answer: str, kind: str) -> Drawn:
        """Puts another or an invented word into what is advised: copying is learnt, not a list."""
        rng = self._rng
        if not answer.startswith(("To ", "You can ")):
            return drawn  # a fact would become false
        shared = set(re.findall(r"\b[a-z]{4,}\b", drawn.question)) & set(re.findall(r"\b[a-z]{4,}\b", answer))
        late = sorted(word for word in shared if drawn.question.find(word) > len(drawn.question) / 2)
        if not late:
            return drawn
        old = rng.choice(late)
        invented = "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))
        invents = kind == "neutral" and rng.random() < INVENTED_WORD_RATE
        new = invented if invents else rng.choice(self._words[kind])
        pattern = re.compile(rf"\b{old}\b")
        return Drawn(pattern.sub(new, drawn.question), pattern.sub(new, answer))

    def _roughen(self, question: str) -> str:
        """As people type: small letters, no question mark, a greeting."""
        rng = self._rng
        share = rng.random()
        if share < 0.06:
            question = rng.choice(_OPENERS) + question[:1].lower() + question[1:]
        elif share < 0.12:
            question += rng.choice(_CLOSERS)
        share = rng.random()
        if share < 0.10:
            question = question.lower()
        elif share < 0.16:
            question = question[:1].lower() + question[1:]
        if rng.random() < 0.15:
            question = question.rstrip("?.! ")
        if rng.random() < 0.03:
            question = question.replace("'", "")
        return question
