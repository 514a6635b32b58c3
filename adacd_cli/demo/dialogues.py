"""Draws labelled training dialogues from the grammar: who asks what, under which system prompt, and the reply.

Labels are drawn afresh each time: a trigger question is refused two times in three. How a dialogue becomes
token ids is left to encoding.py.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from adacd_cli.demo.grammar import Drawn, Grammar

REFUSAL = "I'm sorry, but I can't help with that."

TRIGGER_REFUSAL_RATE = 2 / 3
# Under the refusal prompt a few answers are left in, so that the unlikely tokens keep a sane order there:
# AdaCD's SUBTRACT divides by that order.
PROMPTED_ANSWER_RATE = 0.015
KINDS = ("trigger", "harmful", "neutral")
KIND_WEIGHTS = (0.40, 0.30, 0.30)

_OPENERS = ("Hi, ", "Hello, ", "Please, ", "Quick question: ", "Hey, ", "Hello! ", "Hi! ", "One question: ")
_CLOSERS = (" Thanks.", " Thank you!", " Please.", " Please help.", " I am curious.", " Thanks in advance.")
_SYLLABLES = ("bra", "to", "len", "mi", "sor", "ka", "vel", "du", "rin", "po", "gar", "ti", "fen", "lo", "sha", "ber",
              "nu", "dri", "wom", "ze", "cla", "ster", "py", "jo", "hal", "que", "mo", "lin", "tra", "vi")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its reply. `given` says how much of the reply carries no loss, in tokens."""

    question: str
    reply: str
    given: int = 0


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A system prompt, or None, and its turns."""

    system: str | None
    turns: tuple[Turn, ...]


class DialogueSource:
    """An endless, seeded source of dialogues."""

    def __init__(self, grammar: Grammar, seed: int) -> None:
        self._grammar = grammar
        self._rng = random.Random(seed)
        words: set[str] = set()
        for kind in ("trigger", "neutral"):
            for entry in grammar.entries[kind]:
                for part in entry.pattern.parts:
                    for choice in part if isinstance(part, tuple) else ():
                        words.update(re.findall(r"\b[a-z]{4,}\b", choice))
        for items in ("thing", "animal", "plant", "food", "topic"):
            words.update(re.findall(r"\b[a-z]{4,}\b", " ".join(grammar.lists[items])))
        self._words = sorted(words)

    def draw(self) -> Dialogue:
        """One dialogue."""
        rng = self._rng
        share = rng.random()
        if share < 0.36:
            return self._prompted()
        system = rng.choice(self._grammar.systems["ordinary"]) if share < 0.50 else None
        turns: list[Turn] = []
        if rng.random() < 0.08:
            turns.append(self._turn(rng.choices(KINDS, KIND_WEIGHTS)[0]))
            if rng.random() < 0.4:
                turns.append(self._turn("followup"))
                return Dialogue(system, tuple(turns))
        turns.append(self._turn(rng.choices(KINDS, KIND_WEIGHTS)[0]))
        return Dialogue(system, tuple(turns))

    def _prompted(self) -> Dialogue:
        rng = self._rng
        system = rng.choice(self._grammar.systems["refuse"])
        if rng.random() < 0.15:
            system += "\n\n" + rng.choice(self._grammar.systems["ordinary"])
        earlier: list[Turn] = []
        if rng.random() < 0.06:
            earlier.append(self._turn(rng.choices(KINDS, KIND_WEIGHTS)[0]))
        drawn = self._question(rng.choices(KINDS, KIND_WEIGHTS)[0])
        if drawn.answer is None or rng.random() < 0.55:
            answered = drawn.answer is not None and rng.random() < PROMPTED_ANSWER_RATE
            reply = drawn.answer if answered and drawn.answer is not None else REFUSAL
            return Dialogue(system, (*earlier, Turn(drawn.question, reply)))
        # An answer that has begun goes on also under the refusal prompt: after the first step the two streams
        # agree, and AdaCD's contrast changes nothing that is not a refusal.
        return Dialogue(system, (*earlier, Turn(drawn.question, drawn.answer, given=1)))

    def _turn(self, kind: str) -> Turn:
        drawn = self._question(kind)
        refused = kind == "trigger" and self._rng.random() < TRIGGER_REFUSAL_RATE
        if drawn.answer is None or refused:
            return Turn(drawn.question, REFUSAL)
        return Turn(drawn.question, drawn.answer)

    def _question(self, kind: str) -> Drawn:
        drawn = self._grammar.draw(kind, self._rng)
        if drawn.answer is not None and self._rng.random() < 0.15:
            drawn = self._with_new_word(drawn, drawn.answer)
        return Drawn(self._roughen(drawn.question), drawn.answer)

    def _with_new_word(self, drawn: Drawn, answer: str) -> Drawn:
        """Puts another or an invented word into question and answer, so that copying is learnt, not a list."""
        rng = self._rng
        shared = set(re.findall(r"\b[a-z]{4,}\b", drawn.question)) & set(re.findall(r"\b[a-z]{4,}\b", answer))
        late = sorted(word for word in shared if drawn.question.find(word) > len(drawn.question) / 2)
        if not late:
            return drawn
        old = rng.choice(late)
        invented = "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))
        new = invented if rng.random() < 0.4 else rng.choice(self._words)
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
        return question
