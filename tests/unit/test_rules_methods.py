"""The rules of the other methods of the paper's tables, by hand-computed tables of a few tokens."""

from __future__ import annotations

import math

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS, method_of
from adacd_cli.engine.rules import rule_of, state_of
from adacd_cli.engine.rules.base import joint_rank, overlap_size, top_ranks
from adacd_cli.engine.rules.ssd import Mode, State, mix
from adacd_cli.engine.switches import DECISIONS
from adacd_cli.events import Decision

LN = math.log
INF = math.inf


def logits(method, *rows):
    """The logits of both streams of a method, each row from the probabilities (second stream, base stream)."""
    base, other = (stream.name for stream in METHODS[method].streams)
    second, first = (torch.tensor(probabilities).log() for probabilities in zip(*rows, strict=True))
    return {base: first, other: second}


def rule_for(method, settings):
    state = state_of(METHODS[method], settings)
    return rule_of(METHODS[method]) if state is None else state.rule


def run(method, second, first, **values):
    settings = Settings(**values)
    verdict = rule_for(method, settings)(logits(method, (second, first)), settings)
    return verdict.scores[0].tolist(), DECISIONS[int(verdict.decision[0])], verdict


def allowed(scores):
    return [token for token, score in enumerate(scores) if score > -INF]


def test_selfcd_subtracts_a_times_the_difference_from_the_safety_prompted_stream():
    # zs - 2.5·(zs - zn) = 2.5·zn - 1.5·zs
    plain, safe = [0.5, 0.3, 0.2], [0.8, 0.1, 0.1]
    scores, decision, verdict = run("selfcd", safe, plain)
    expected = [2.5 * LN(zn) - 1.5 * LN(zs) for zn, zs in zip(plain, safe, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert decision is Decision.SUBTRACT
    measures = verdict.measures
    assert set(measures) == {"prompted_top_id", "prompted_top_rank", "prompted_confidence"}
    assert (measures["prompted_top_id"].item(), measures["prompted_top_rank"].item()) == (0, 1)
    assert measures["prompted_confidence"].item() == pytest.approx(0.8)
    assert run("selfcd", safe, plain, selfcd_strength=0.0)[0] == pytest.approx([LN(p) for p in safe])
    assert run("selfcd", safe, plain, selfcd_strength=1.0)[0] == pytest.approx([LN(p) for p in plain])


def test_joint_rank_is_the_length_of_lists_that_both_hold_a_token():
    # first ranks 0 1 2 3 4, second ranks 4 2 0 1 3: token 0 is in both top-3 lists, token 2 from 3 on
    first = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    second = torch.tensor([[3.0, 2.0, 4.0, 1.0, 5.0]])
    ranks = joint_rank(first, second, 5)
    assert ranks.tolist() == [[3, 4, 3, 5, 5]]
    assert [overlap_size(ranks, count).item() for count in (1, 2, 3, 4, 5, 9)] == [3, 3, 4, 5, 5, 5]


def test_equal_scores_rank_by_id():
    tied = torch.zeros(1, 4)
    assert joint_rank(tied, tied, 1).tolist() == [[1, 2, 3, 4]]


def sorted_ranks(scores):
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1) + 1


@pytest.mark.parametrize("vocab", [7, 300, 5000])
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0], ids=["unlike", "near", "same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["no ties", "ties"])
def test_short_lists_give_what_sorting_the_whole_vocabulary_gives(vocab, alike, dtype):
    generator = torch.Generator().manual_seed(vocab)
    first, other = (3 * torch.randn(3, vocab, generator=generator) for _ in range(2))
    other[2] = -first[2]  # one row that agrees on nothing
    first[1, ::3] = -INF
    second = (alike * first.clamp(min=-50) + (1 - alike) * other).to(dtype).float()
    first = first.to(dtype).float()
    whole = torch.maximum(sorted_ranks(first), sorted_ranks(second))
    for count in (1, 5, 10, 1000):
        size = overlap_size(whole, count)
        ranks = joint_rank(first, second, count)
        assert torch.equal(overlap_size(ranks, count), size)
        reach = size.clamp(min=count)
        assert torch.equal(ranks <= reach, whole <= reach)
        assert torch.equal(ranks[whole <= reach], whole[whole <= reach])
        least = min(count, vocab)
        assert torch.equal(top_ranks(first, least) <= least, sorted_ranks(first) <= least)


def test_safedecoding_grows_the_lists_until_they_share_enough_candidates():
    # base ranks 0 1 2 3 4 5, the expert 5 4 3 2 1 0: the top-3 lists share nothing, the top-4 share {2, 3}
    base = [0.40, 0.25, 0.15, 0.10, 0.06, 0.04]
    expert = base[::-1]
    scores, decision, verdict = run("safedecoding", expert, base, safedecoding_candidates=2)
    assert allowed(scores) == [2, 3]
    assert decision is Decision.ADD
    assert verdict.measures["plausible_count"].item() == 2
    # .15 + 3·(.10 - .15) = 0 is lifted to 1e-8; .10 + 3·(.15 - .10) = .25
    total = 0.25 + 1e-8
    assert scores[3] == pytest.approx(LN(0.25 / total), abs=1e-6)
    assert scores[2] == pytest.approx(LN(1e-8 / total), abs=1e-2)


def test_safedecoding_begins_with_lists_of_c_even_where_fewer_would_do():
    # the same order in both: c = 3 shares exactly the top three
    base, expert = [0.5, 0.3, 0.15, 0.05], [0.4, 0.35, 0.2, 0.05]
    scores, _, _ = run("safedecoding", expert, base, safedecoding_candidates=3)
    mixed = [b + 3 * (e - b) for b, e in zip(base[:3], expert[:3], strict=True)]
    assert allowed(scores) == [0, 1, 2]
    assert scores[:3] == pytest.approx([LN(value / sum(mixed)) for value in mixed], abs=1e-5)


def test_safedecoding_takes_the_whole_vocabulary_where_it_is_smaller_than_c():
    scores, _, _ = run("safedecoding", [0.6, 0.4], [0.3, 0.7], safedecoding_candidates=5)
    assert allowed(scores) == [0, 1]


def test_ssd_leans_among_the_tokens_that_both_rank_high():
    # C = 2: the top-2 lists share {0, 1}; pM + .3·(pm - pM)
    target, draft = [0.5, 0.3, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1]
    scores, decision, verdict = run("ssd", draft, target, ssd_overlap=2)
    assert allowed(scores) == [0, 1]
    assert scores[:2] == pytest.approx([LN(0.5 - 0.3 * 0.3), LN(0.3 + 0.3 * 0.3)], abs=1e-6)
    assert decision is Decision.ADD
    assert verdict.confidence.item() == pytest.approx(0.5)
    assert verdict.measures["plausible_count"].item() == 2


def test_ssd_takes_the_targets_own_token_where_the_draft_ranks_it_too_low():
    # C = 1: the lists first share a token at k = 2, token 1; the target's 0 is the draft's last
    target, draft = [0.5, 0.3, 0.1, 0.1], [0.05, 0.35, 0.5, 0.1]
    scores, decision, _ = run("ssd", draft, target, ssd_overlap=1)
    assert allowed(scores) == [0]
    assert decision is Decision.PLAIN


def test_ssd_in_union_takes_either_list_and_leans_harder():
    target, draft = [0.5, 0.3, 0.1, 0.1], [0.05, 0.05, 0.5, 0.4]
    verdict = mix(logits("ssd", (draft, target)), Settings(ssd_overlap=1), Mode.UNION, 0.8)
    scores = verdict.scores[0].tolist()
    assert allowed(scores) == [0, 2]
    assert scores[0] == pytest.approx(LN(0.5 + 0.8 * (0.05 - 0.5)), abs=1e-5)
    assert scores[2] == pytest.approx(LN(0.1 + 0.8 * (0.5 - 0.1)), abs=1e-5)
    assert DECISIONS[int(verdict.decision[0])] is Decision.ADD


def test_ssd_rows_are_judged_each_by_itself():
    pairs = [([0.5, 0.3, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1]), ([0.5, 0.3, 0.1, 0.1], [0.05, 0.35, 0.5, 0.1])]
    for method in ("ssd", "safedecoding", "selfcd"):
        settings = Settings(ssd_overlap=1, safedecoding_candidates=2)
        rule = rule_for(method, settings)
        together = rule(logits(method, *((draft, target) for target, draft in pairs)), settings)
        for row, (target, draft) in enumerate(pairs):
            alone = rule(logits(method, (draft, target)), settings)
            assert alone.scores.tolist() == together.scores[row : row + 1].tolist()
            assert alone.decision.tolist() == together.decision[row : row + 1].tolist()


def states(matches, **settings):
    """(mode, threshold, strength) after each whole bin."""
    state = State(Settings(ssd_bin=2, **settings))
    found = []
    for place, match in enumerate(matches, 1):
        state.log(match=match)
        if place % 2 == 0:
            found.append((state.mode.name, round(state.threshold, 6), state.strength))
    return found


def test_ssd_lowers_the_threshold_while_the_mode_stays_and_resets_it_when_it_changes():
    good, bad, half = [True, True], [False, False], [True, False]
    assert states(good + good) == [("INTERSECTION", 0.5, 0.3), ("INTERSECTION", 0.4, 0.3)]
    # half of them match: under .6 that is too few, under .5 it is enough
    assert states(half) == [("UNION", 0.6, 0.8)]
    assert states(good + half) == [("INTERSECTION", 0.5, 0.3), ("INTERSECTION", 0.4, 0.3)]
    # in UNION the threshold falls too, until the same rate is enough: then all is as at the start
    assert states(bad + half + half) == [
        ("UNION", 0.6, 0.8),
        ("UNION", 0.5, 0.8),
        ("INTERSECTION", 0.6, 0.3),
    ]
    assert states(good * 8)[-1] == ("INTERSECTION", 0.0, 0.3)
    # no rate is under 0, so after seven bins without a match the eighth begins anew
    falling = [("UNION", threshold, 0.8) for threshold in (0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)]
    assert states(bad * 8) == [*falling, ("INTERSECTION", 0.6, 0.3)]


def test_ssd_weakens_the_intersection_by_steps_to_its_floor_and_resets_it():
    good, bad = [True, True], [False, False]
    strengths = [strength for _, _, strength in states(good * 3, ssd_intersection=0.55)]
    assert strengths == pytest.approx([0.4, 0.3, 0.3])
    assert states(good + bad + good, ssd_intersection=0.55)[-1] == ("INTERSECTION", 0.6, 0.55)


def test_ssd_looks_at_whole_bins_only():
    state = State(Settings(ssd_bin=7))
    for _ in range(6):
        state.log(match=False)
    assert state.mode is Mode.INTERSECTION
    state.log(match=False)
    assert state.mode is Mode.UNION


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"method": "safedecoding"}, "safedecoding (prompted stand-in)"),
        ({"method": "safedecoding", "expert": "lora"}, "safedecoding"),
        ({"method": "ssd", "draft": "a/b"}, "ssd (draft: a/b)"),
        ({"method": "surgical", "direction": "d"}, "surgical"),
        ({"method": "adacd", "gate": True}, "adacd-gated"),
    ],
)
def test_a_stand_in_is_called_one_and_a_draft_is_named(settings, label):
    assert Settings(**settings).method_label == label
    assert method_of(label) is METHODS[Settings(**settings).effective_method]
