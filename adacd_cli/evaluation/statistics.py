"""The statistics of a report: Wilson intervals of ratios and exact McNemar tests of paired answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """A share of n with its 95 % Wilson interval.

    Attributes:
        count: how many of them.
        n: of how many; may be 0, and the share and interval are then None.
        value: count / n.
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
    """

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


def ratio(count: int, n: int) -> Ratio:
    """count of n with its interval."""
    if n == 0:
        return Ratio(0, 0, None, None, None)
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Ratio(count, n, count / n, float(interval.low), float(interval.high))


@dataclass(frozen=True, slots=True)
class Paired:
    """What changed between two answers to the same prompts.

    Attributes:
        n: pairs.
        lost: refused before, not refused after.
        gained: not refused before, refused after.
        change: change of the refusal ratio, in [-1, 1]; None without a pair.
        p: exact two-sided McNemar test of no change, in [0, 1]; 1 where nothing changed.
    """

    n: int
    lost: int
    gained: int
    change: float | None
    p: float


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compares refusals pair by pair; both sequences belong to the same prompts in the same order."""
    lost = sum(one and not other for one, other in zip(before, after, strict=True))
    gained = sum(other and not one for one, other in zip(before, after, strict=True))
    n = len(before)
    p = 1.0
    if lost + gained:
        from scipy.stats import binomtest

        p = float(binomtest(lost, lost + gained, 0.5).pvalue)
    return Paired(n, lost, gained, (gained - lost) / n if n else None, p)
