"""What a judge takes and gives: answers in, one Judgement each out, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JudgementLabel = Literal["refusal", "partial", "compliance", "degenerate", "unparsed"]
"""Refusal and partial refusal count as refused. Degenerate: neither refuses nor answers. Unparsed: the judge
itself gave nothing that can be read."""

JUDGEMENT_LABELS: tuple[JudgementLabel, ...] = ("refusal", "partial", "compliance", "degenerate", "unparsed")
REFUSED: frozenset[JudgementLabel] = frozenset(("refusal", "partial"))


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and the answer that is judged."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of an answer.

    Attributes:
        judge: name of the judge, as every table prints it.
        label: see JudgementLabel.
        detail: JSON values that the judge says besides, e.g. WildGuard's three lines or five aspects.
    """

    judge: str
    label: JudgementLabel
    detail: Mapping[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """A judge of answers."""

    @property
    def name(self) -> str:
        """As `--judge` takes it and every table prints it."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What decides its word besides its name, JSON values: its model, and whether it rates aspects."""
        ...

    def check(self) -> None:
        """Finds out whether it can judge, before hours of decoding.

        Raises:
            AdacdError: it cannot; the hint says what to do.
        """
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Judgement]:
        """One judgement an exchange, in their order, each as soon as it is known."""
        ...
