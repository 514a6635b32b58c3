"""The statistics of a report: Wilson intervals, exact McNemar tests of paired answers, and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adacd_cli.evaluation.judges.base import REFUSED, JudgementLabel


@dataclass(frozen=True, slots=True)
class Ratio:
    """count of n, the share, and its 95 % Wilson interval, all in [0, 1]; None where n is 0."""

    count: int
    n: int
    value: float | None
    low: float | None
    high: float | None


def ratio(count: int, n: int) -> Ratio:
    if n == 0:
        return Ratio(0, 0, None, None, None)
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Ratio(count, n, count / n, float(interval.low), float(interval.high))


class Paired(NamedTuple):
    """What changed in n pairs of answers to the same prompts: refusals lost and gained.

    `change` is that of the refusal ratio, in [-1, 1], None without a pair; `p` the exact two-sided McNemar test
    of no change, in [0, 1].
    """

    n: int
    lost: int
    gained: int
    change: float | None
    p: float


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compares refusals pair by pair; both sequences belong to the same prompts in the same order."""
    n, lost = len(before), sum(one and not other for one, other in zip(before, after, strict=True))
    gained = lost + sum(after) - sum(before)
    if not lost + gained:
        return Paired(n, 0, 0, 0.0 if n else None, 1.0)
    from scipy.stats import binomtest

    p = float(binomtest(lost, lost + gained, 0.5).pvalue)
    return Paired(n, lost, gained, (gained - lost) / n, p)


def cohen_kappa(labels_a: Sequence[JudgementLabel], labels_b: Sequence[JudgementLabel]) -> float | None:
    """Cohen's kappa, in [−1, 1], of two judges on refused (refusal, partial) against not refused, of the same
    answers.

    κ = (p_o − p_e) / (1 − p_e), p_o the share of answers on which both say the same, p_e that share had each given
    its own labels by chance (Cohen 1960, doi:10.1177/001316446002000104). An answer that one of the two did not
    judge (unparsed) is left out; a degenerate one is not refused. None where no answer is left, or chance alone
    explains all.
    """
    both = [pair for pair in zip(labels_a, labels_b, strict=True) if "unparsed" not in pair]
    pairs = [(a in REFUSED, b in REFUSED) for a, b in both]
    n = len(pairs)
    refused_a, refused_b = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    # in whole numbers, times n², so that no rounding decides what is undefined
    observed = n * sum(a == b for a, b in pairs)
    expected = refused_a * refused_b + (n - refused_a) * (n - refused_b)
    if expected == n * n:
        return None
    return (observed - expected) / (n * n - expected)
