"""The rules by hand-computed five-token tables.

Each table gives z and z* as logits; the expected numbers were worked out by hand from METHOD's formulas, with
α = 2 so that the sums stay easy.
"""

from __future__ import annotations

import math

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.engine.rules import rule_of, state_of
from adacd_cli.engine.switches import DECISIONS
from adacd_cli.events import Decision

LN = math.log
INF = math.inf
adacd, gated, default = (rule_of(METHODS[name]) for name in ("adacd", "adacd-gated", "default"))


def run(rule, z, prompted, **settings):
    """The rule on one row: (scores, decision, verdict)."""
    values = {"alpha": 2.0, "agreement_threshold": 0.9, "plausibility": 0.0} | settings
    rows = {"unprompted": z} if prompted is None else {"unprompted": z, "prompted": prompted}
    verdict = rule({name: torch.tensor([row]) for name, row in rows.items()}, Settings(**values))
    return verdict.scores[0].tolist(), DECISIONS[int(verdict.decision[0])], verdict


def numbers(verdict):
    """(agreement, y*, rank, c, c*, plausible) of the only row."""
    told = {name: values.item() for name, values in verdict.measures.items()}
    first, last = (
        ("agreement", "prompted_top_id", "prompted_top_rank"),
        ("prompted_confidence", "plausible_count"),
    )
    return *(told[name] for name in first), verdict.confidence.item(), *(told[name] for name in last)


def test_every_method_has_a_rule_and_a_sentence():
    for name, method in METHODS.items():
        assert method.name == name
        state = state_of(method, Settings())
        assert callable(rule_of(method) if state is None else state.rule)
        assert method.summary.endswith(".")


def test_agreement_one_and_sure_is_added():
    # P = P* = (.8 .05 .05 .05 .05): same top, c = c*, so ADD; z* + 2·(z* − z) = z*
    z = [LN(0.8), LN(0.05), LN(0.05), LN(0.05), LN(0.05)]
    scores, decision, verdict = run(adacd, z, z)
    assert decision is Decision.ADD
    assert scores == pytest.approx(z)
    assert numbers(verdict) == pytest.approx((1.0, 0, 1, 0.8, 0.8, 5))


def test_agreement_one_but_unsure_is_subtracted():
    # c = .4 < .9·.8: SUBTRACT though both streams agree; s = z* − 2(z* − z) = 2z − z*
    z = [LN(0.4), LN(0.3), LN(0.1), LN(0.1), LN(0.1)]
    prompted = [LN(0.8), LN(0.05), LN(0.05), LN(0.05), LN(0.05)]
    scores, decision, verdict = run(adacd, z, prompted)
    assert decision is Decision.SUBTRACT
    expected = [LN(0.4**2 / 0.8), LN(0.3**2 / 0.05), LN(0.1**2 / 0.05), LN(0.1**2 / 0.05), LN(0.1**2 / 0.05)]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert max(range(5), key=scores.__getitem__) == 1
    assert numbers(verdict) == pytest.approx((1.0, 0, 1, 0.4, 0.8, 5))


@pytest.mark.parametrize(
    ("z", "rank", "agreement"),
    [
        ([2.0, 1.0, 0.0, 0.0, 0.0], 1, 1.0),
        ([2.0, 3.0, 0.0, 0.0, 0.0], 2, 1 / 2),
        ([2.0, 3.0, 4.0, 0.0, 0.0], 3, 1 / 3),
        ([0.0, 3.0, 4.0, 5.0, 6.0], 5, 1 / 5),
        ([2.0, 2.0, 2.0, 0.0, 0.0], 1, 1.0),  # a tie at the top counts for y*
        ([2.0, 3.0, 3.0, 0.0, 0.0], 3, 1 / 3),  # both of a tie above count
    ],
)
def test_agreement_is_one_over_the_rank_counted(z, rank, agreement):
    _, decision, verdict = run(adacd, z, [5.0, 0.0, 0.0, 0.0, 0.0])
    assert (verdict.measures["prompted_top_rank"].item(), verdict.measures["prompted_top_id"].item()) == (
        rank,
        0,
    )
    assert verdict.measures["agreement"].item() == pytest.approx(agreement)
    assert decision is Decision.SUBTRACT


def test_a_tie_in_the_prompted_stream_takes_the_first():
    _, _, verdict = run(adacd, [0.0, 1.0, 2.0, 0.0, 0.0], [0.0, 4.0, 4.0, 0.0, 0.0])
    assert verdict.measures["prompted_top_id"].item() == 1
    assert verdict.measures["prompted_top_rank"].item() == 2


@pytest.mark.parametrize(
    ("threshold", "decision"),
    [
        (0.5, Decision.ADD),
        (math.nextafter(0.5, 1), Decision.ADD),
        (0.51, Decision.SUBTRACT),
        (0.0, Decision.ADD),
    ],
)
def test_equality_at_the_agreement_threshold_adds(threshold, decision):
    # agr = 1/2; c = .5 and c* = .5 + so that the confidence test holds at any of these thresholds.
    # The float after 0.5 is 0.5 in float32, in which the rule is computed.
    z = [LN(0.4), LN(0.5), LN(0.05), LN(0.03), LN(0.02)]
    assert (
        run(adacd, z, [LN(0.5), LN(0.2), LN(0.1), LN(0.1), LN(0.1)], agreement_threshold=threshold)[1]
        is decision
    )


@pytest.mark.parametrize(("threshold", "decision"), [(0.5, Decision.ADD), (0.501, Decision.SUBTRACT)])
def test_equality_at_the_confidence_threshold_adds(threshold, decision):
    # c = 1/4 exactly (four equal tokens, one impossible), c* = 1/2 exactly: c = .5·c*
    z = [0.0, 0.0, 0.0, 0.0, -200.0]
    prompted = [0.0, 0.0, -200.0, -200.0, -200.0]
    _, got, verdict = run(adacd, z, prompted, agreement_threshold=threshold)
    assert (verdict.confidence.item(), verdict.measures["prompted_confidence"].item()) == (0.25, 0.5)
    assert got is decision


def test_all_equal_logits_add_and_keep_every_token():
    scores, decision, verdict = run(adacd, [1.0] * 5, [3.0] * 5, plausibility=1.0)
    assert decision is Decision.ADD
    assert scores == [3.0 + 2.0 * (3.0 - 1.0)] * 5
    assert numbers(verdict) == pytest.approx((1.0, 0, 1, 0.2, 0.2, 5))


def test_the_mask_is_of_the_unprompted_stream_and_can_leave_one_token():
    # P = (.9 .05 .03 .01 .01), β = .1: only tokens with P ≥ .09 stay, whatever z* thinks
    z = [LN(0.9), LN(0.05), LN(0.03), LN(0.01), LN(0.01)]
    scores, decision, verdict = run(adacd, z, [-9.0, 5.0, 5.0, 5.0, 5.0], plausibility=0.1)
    assert decision is Decision.SUBTRACT
    assert scores[1:] == [-INF] * 4
    assert scores[0] == pytest.approx(-9.0 - 2.0 * (-9.0 - LN(0.9)))
    assert verdict.measures["plausible_count"].item() == 1


def test_equality_at_the_mask_keeps_the_token():
    # P = (1/2, 1/4, 1/4·0, …): logits 0 and −ln 2 give P[1] = half of P[0], in float32 exactly at β = .5
    scores, _, verdict = run(adacd, [1.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 5, plausibility=1.0)
    assert scores[2:] == [-INF] * 3
    assert verdict.measures["plausible_count"].item() == 2


def test_no_mask_at_beta_zero_even_where_the_probability_underflows():
    _, _, verdict = run(adacd, [0.0, -500.0, -500.0, -500.0, -500.0], [0.0] * 5, plausibility=0.0)
    assert verdict.measures["plausible_count"].item() == 5


def test_alpha_zero_gives_the_prompted_stream_in_both_directions():
    prompted = [1.0, 2.0, 3.0, 4.0, 5.0]
    for z in ([5.0, 4.0, 3.0, 2.0, 1.0], prompted):
        assert run(adacd, z, prompted, alpha=0.0)[0] == prompted


def test_rows_are_judged_each_by_itself():
    z = torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0]])
    prompted = torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]])
    verdict = adacd({"unprompted": z, "prompted": prompted}, Settings(alpha=2.0, plausibility=0.0))
    assert [DECISIONS[d] for d in verdict.decision.tolist()] == [Decision.ADD, Decision.SUBTRACT]
    assert verdict.scores.tolist() == [[2.0, 0.0, 0.0, 0.0, 0.0], [-2.0, 4.0, 0.0, 0.0, 0.0]]
    for row in range(2):
        own = {"unprompted": z[row : row + 1], "prompted": prompted[row : row + 1]}
        alone = adacd(own, Settings(alpha=2.0, plausibility=0.0))
        assert alone.scores.tolist() == verdict.scores[row : row + 1].tolist()


def test_gated_is_plain_where_the_streams_differ_and_adacd_where_they_agree():
    z, prompted = [0.0, 2.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0]
    scores, decision, verdict = run(gated, z, prompted)
    assert (scores, decision) == (z, Decision.PLAIN)
    assert verdict.measures["prompted_top_rank"].item() == 2  # the numbers are still told
    for unprompted in ([2.0, 0.0, 0.0, 0.0, 0.0], [2.0, 1.9, 0.0, 0.0, 0.0]):
        sure = [6.0, 0.0, 0.0, 0.0, 0.0]
        assert run(gated, unprompted, sure)[:2] == run(adacd, unprompted, sure)[:2]


def test_default_gives_z_and_its_confidence():
    z = [LN(0.5), LN(0.2), LN(0.1), LN(0.1), LN(0.1)]
    scores, decision, verdict = run(default, z, None)
    assert scores == pytest.approx(z)
    assert (decision, verdict.measures) == (Decision.PLAIN, {})
    assert verdict.confidence.item() == pytest.approx(0.5)
