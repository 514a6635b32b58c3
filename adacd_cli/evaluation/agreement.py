"""How far two judges agree beyond chance. Pure Python; it knows labels and nothing of who gave them."""

from __future__ import annotations

from collections.abc import Sequence

from adacd_cli.evaluation.judges.base import REFUSED, JudgementLabel


def cohen_kappa(labels_a: Sequence[JudgementLabel], labels_b: Sequence[JudgementLabel]) -> float | None:
    """Cohen's kappa of two judges on refused (refusal, partial) against not refused.

    κ = (p_o − p_e) / (1 − p_e), p_o the share of answers on which both say the same, p_e that share had each
    given its own labels by chance (Cohen 1960, doi:10.1177/001316446002000104). An answer that one of the two
    did not judge (unparsed) has no class and is left out of both; a degenerate one is not refused.

    Args:
        labels_a: one judge's labels.
        labels_b: the other's, of the same answers in the same order.

    Returns:
        A number in [−1, 1]; None where κ is undefined: no answer is left, or both judges gave all of them one
        and the same class, so that chance alone explains everything.

    Raises:
        ValueError: the two are not equally long.
    """
    pairs = [
        (a in REFUSED, b in REFUSED)
        for a, b in zip(labels_a, labels_b, strict=True)
        if "unparsed" not in (a, b)
    ]
    n = len(pairs)
    refused_a, refused_b = sum(a for a, _ in pairs), sum(b for _, b in pairs)
    # in whole numbers, times n², so that no rounding decides what is undefined
    observed = n * sum(a == b for a, b in pairs)
    expected = refused_a * refused_b + (n - refused_a) * (n - refused_b)
    if expected == n * n:
        return None
    return (observed - expected) / (n * n - expected)
