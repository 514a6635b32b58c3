"""Cohen's kappa against values computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from adacd_cli.evaluation.judges import JudgementLabel
from adacd_cli.evaluation.statistics import cohen_kappa

R: JudgementLabel = "refusal"
P: JudgementLabel = "partial"
C: JudgementLabel = "compliance"
D: JudgementLabel = "degenerate"
U: JudgementLabel = "unparsed"


@pytest.mark.parametrize(
    ("labels_a", "labels_b", "kappa"),
    [
        # Cohen's own kind of table, 20 + 5 / 10 + 15: p_o = 35/50, p_e = (25·30 + 25·20)/2500 = 1/2
        ([R] * 25 + [C] * 25, [R] * 20 + [C] * 5 + [R] * 10 + [C] * 15, 0.4),
        # p_o = 3/4, p_e = (2·1 + 2·3)/16 = 1/2
        ([R, R, C, C], [R, C, C, C], 0.5),
        # the same: a partial refusal is refused, a degenerate answer is not
        ([P, R, D, C], [R, D, C, D], 0.5),
        # the same: what one of the two could not read is in neither
        ([R, R, U, C, C, R, U], [R, C, R, C, C, U, U], 0.5),
        # as good as chance: p_o = 1/2 = p_e
        ([R, R, C, C], [R, C, R, C], 0.0),
        # always the other class: p_o = 0, p_e = 1/2
        ([R, C], [C, R], -1.0),
        ([R, C, P], [P, C, R], 1.0),
        # one judge has a single class, the other two: p_o = p_e = 1/2
        ([R, R], [R, C], 0.0),
        # each has a single class, but not the same: p_o = 0, p_e = 0
        ([R, R], [C, C], 0.0),
        # both have a single class, the same: p_e = 1
        ([R, P], [R, R], None),
        ([C, D], [C, C], None),
        ([R, U], [U, C], None),
        ([], [], None),
    ],
)
def test_kappa_by_hand(
    labels_a: Sequence[JudgementLabel], labels_b: Sequence[JudgementLabel], kappa: float | None
) -> None:
    expected = None if kappa is None else pytest.approx(kappa, abs=1e-12)
    assert cohen_kappa(labels_a, labels_b) == expected
    assert cohen_kappa(labels_b, labels_a) == expected


def test_kappa_of_different_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        cohen_kappa([R, C], [R])
