"""What a rule of the `keyword` judge is: a named signal in an answer's words, and what it weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MEANS = "means"
REASONS = "reasons"
"""What a question may ask for, see questions.py."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A signal: the phrases it is known by, and what it is thought to weigh.

    Attributes:
        name: as a judgement's detail calls it.
        weight: above 0 for a refusal, below for an answer. A calibration stays near it, see calibrate.py.
        phrases: regular expressions, searched in one sentence at a time, as wording.py writes it.
        later: what it weighs in a sentence after the opening; None where that says nothing.
        spoken: it refuses in so many words. Then its weight is as stated here and not fitted, and it does not
            count in what an answer presents: "The error says: …".
        first: only the answer's first sentence counts.
        to: what the question must ask for; empty where that does not matter.
        learnt: more phrases, by the model whose judged answers suggested them, so that a calibration can do
            without them where it leaves that model out.
    """

    name: str
    weight: float
    phrases: tuple[str, ...] = ()
    later: float | None = None
    spoken: bool = False
    first: bool = False
    to: str = ""
    learnt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def one_of(*lines: str) -> str:
    """A group of alternatives from lists separated by `|`, so that a long list may take several lines."""
    return f"(?:{'|'.join(lines)})"


def later(name: str) -> str:
    """The name of a rule's signal when it is found after the opening."""
    return f"{name}, later"
