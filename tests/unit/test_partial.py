"""Partly known logits as rows for the rules, and when a step's token is certain; computed by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.engine.backend import Need, SampledToken
from adacd_cli.engine.partial import first_needs, logits_of, needs, only_told, outcome_of
from adacd_cli.engine.rules import rule_of
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.step import Report, ScoreProcessor, pack_step, unpack
from adacd_cli.events import Candidate, Decision

ADACD, GATED, PLAIN = METHODS["adacd"], METHODS["adacd-gated"], METHODS["default"]


def known(probabilities, vocab=99, others=None, exhausted=False):
    """The logits of which these probabilities by id are known."""
    pairs = sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0]))
    ids, values = zip(*pairs, strict=True)
    named = {token: math.log(value) for token, value in (others or {}).items()}
    return logits_of(ids, [math.log(value) for value in values], vocab, named, exhausted=exhausted)


def lacking(base, other=None, *, method=ADACD, noise=None, vocab=99, others=None, **settings):
    """What a step lacks: "longer" of the base stream's list, and ids of the other stream."""
    streams = {"unprompted": known(base, vocab)}
    if other is not None:
        streams["prompted"] = known(other, vocab, others)
    found = needs(method, Settings(**settings), streams, noise)
    longer = "unprompted" in found
    if longer:
        assert found["unprompted"].top > streams["unprompted"].listed
    return longer, found["prompted"].ids if "prompted" in found else ()


NOTHING = (False, ())


def test_the_rest_of_the_probability_is_shared_equally_by_what_is_not_known():
    logits = known({3: 0.5, 1: 0.3}, vocab=6)
    expected = torch.tensor([[0.05, 0.3, 0.05, 0.5, 0.05, 0.05]])
    torch.testing.assert_close(logits.at().exp(), expected)
    torch.testing.assert_close(logits.at().softmax(dim=-1), expected)
    assert (logits.told, logits.listed, logits.exhausted) == ((3, 1), 2, False)


def test_a_whole_list_is_the_distribution_itself():
    logits = known({0: 0.1, 1: 0.2, 2: 0.7}, vocab=3)
    torch.testing.assert_close(logits.at().exp(), torch.tensor([[0.1, 0.2, 0.7]]))
    assert (logits.told, logits.exhausted) == (None, True)


def test_what_is_not_listed_never_rises_above_what_is():
    """Rounding may leave more than there is: 1 - 0.9 = 0.1 for one token, beside a listed 0.05."""
    row = known({0: 0.85, 1: 0.05}, vocab=3).at()
    assert row[0, 2] == row[0, 1]


def test_listed_probabilities_that_add_up_to_more_than_one_leave_next_to_nothing():
    row = known({0: 0.9, 1: 0.10001}, vocab=1000).at()
    assert row.isfinite().all()
    assert row[0, 2:].exp().sum() < 1e-20


def test_ids_beyond_the_vocabulary_are_padding():
    logits = known({0: 0.6, 7: 0.1}, vocab=4)
    torch.testing.assert_close(logits.at().exp(), torch.tensor([[0.6, 0.1, 0.1, 0.1]]))
    assert (logits.told, logits.listed) == ((0,), 1)


def test_values_that_are_known_besides_are_told_after_the_list():
    logits = known({1: 0.8}, vocab=4, others={0: 0.001})
    torch.testing.assert_close(logits.at().exp(), torch.tensor([[0.001, 0.8, 0.0995, 0.0995]]))
    assert (logits.told, logits.listed) == ((1, 0), 1)


def test_padding_without_a_mask_makes_a_step_uncertain():
    whole = {0: 0.7, 1: 0.2, 3: 0.1}  # 3 is beyond
    assert lacking(whole, whole, vocab=3, plausibility=0.0) == (True, ())


LONG = {0: 0.50, 1: 0.30, 2: 0.004}  # goes on below 0.01 · 0.50
SHORT = {0: 0.50, 1: 0.30}
OTHER = {1: 0.8, 0: 0.1}


@pytest.mark.parametrize(
    ("base", "other", "settings", "expected"),
    [
        (LONG, OTHER, {}, NOTHING),
        (LONG, {1: 0.8}, {}, (False, (0,))),  # 0 is plausible, and has no value in the other stream
        (SHORT, OTHER, {}, (True, ())),  # a third token may be plausible
        (SHORT, OTHER, {"plausibility": 0.65}, NOTHING),  # 0.30 < 0.65 · 0.50: nothing else can be
        (LONG, {0: 0.9}, {"plausibility": 0.65}, NOTHING),  # 1 is not plausible
        (LONG, OTHER, {"plausibility": 0.0}, (True, (2,))),  # every token counts
        (SHORT, {1: 0.8}, {}, (True, (0,))),
        ({0: 0.45}, {0: 0.9}, {"plausibility": 1.0}, (True, ())),  # one that ties may follow
        ({0: 0.5, 1: 0.4}, {0: 0.5, 1: 0.5}, {"plausibility": 1.0}, NOTHING),
    ],
)
def test_every_plausible_token_must_have_its_value_in_both_streams(base, other, settings, expected):
    assert lacking(base, other, **settings) == expected


@pytest.mark.parametrize(
    ("base", "longer"),
    [
        ({0: 0.60, 1: 0.395}, False),  # 0.005 is left, and a plausible token has 0.006 at least
        ({0: 0.60, 1: 0.39}, True),  # 0.01 is left
        ({0: 0.995}, False),
        ({0: 0.97}, True),
    ],
)
def test_what_is_left_bounds_what_is_not_listed(base, longer):
    assert lacking(base, {0: 0.5, 1: 0.5}) == (longer, ())


def test_a_longer_list_is_asked_down_to_the_mask():
    found = needs(ADACD, Settings(), {"unprompted": known(SHORT), "prompted": known(OTHER)}, None)
    assert found["unprompted"].floor == pytest.approx(math.log(0.01), abs=1e-3)
    streams = {"unprompted": known(SHORT), "prompted": known(OTHER)}
    assert needs(ADACD, Settings(plausibility=0.0), streams, None)["unprompted"].floor == -math.inf


def test_values_that_are_known_besides_count():
    assert lacking(LONG, {1: 0.8}, others={0: 0.001}) == NOTHING


def test_whole_distributions_lack_nothing_even_without_a_mask():
    everything = {0: 0.7, 1: 0.2, 2: 0.1}
    assert lacking(everything, everything, vocab=3, plausibility=0.0) == NOTHING


def test_a_step_over_exhausted_streams_is_no_more_certain():
    streams = {"unprompted": known(SHORT, exhausted=True), "prompted": known({1: 0.8}, exhausted=True)}
    assert list(needs(ADACD, Settings(), streams, None)) == ["unprompted", "prompted"]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.9, False),  # y* is fourth or lower: agr ≤ 1/4 < λ whatever its rank
        (0.3, False),
        (0.2, True),  # 1/4 ≥ λ, and 1/9 would not be
        (0.0, False),  # every rank agrees
    ],
)
def test_a_rank_that_is_only_bounded_must_not_decide(threshold, expected):
    base, other = {0: 0.6, 1: 0.3, 2: 0.001}, {7: 0.5, 0: 0.3, 1: 0.1}
    assert lacking(base, other, agreement_threshold=threshold) == (expected, ())


def test_a_rank_does_not_matter_where_the_confidence_says_subtract():
    base, other = {0: 0.15, 1: 0.1, 2: 0.001}, {7: 0.9, 0: 0.05, 1: 0.04}
    assert lacking(base, other, agreement_threshold=0.2) == NOTHING  # 0.15 < 0.2 · 0.9


# where 0 is at the top of both streams and λ = 0.5: ADD; s = 5.5·z* − 4.5·z
TOP = {0: 0.5, 1: 0.4, 2: 0.001}
ADDS = {"agreement_threshold": 0.5}


@pytest.mark.parametrize(
    ("base", "other", "settings", "expected"),
    [
        # token 1 has at most log 0.1 in the other stream: 5.5·log(0.1) − 4.5·log(0.4) = −8.54, and token 0
        # has 5.5·log(0.9) − 4.5·log(0.5) = 2.54
        (TOP, {0: 0.9}, ADDS, NOTHING),
        # 5.5·log(0.5) − 4.5·log(0.4) = 0.31, and token 0 has 5.5·log(0.5) − 4.5·log(0.5) = −0.69
        (TOP, {0: 0.5}, ADDS, (False, (1,))),
        # 1 has the top in the other stream: SUBTRACT, where 0 wins with a value that is low enough
        (TOP, {1: 0.9}, {}, (False, (0,))),
        # the same with α = 1: s = z, whatever z* is
        (TOP, {1: 0.9}, {"alpha": 1.0}, NOTHING),
        # α = 0.5: s = 0.5·z* + 0.5·z; token 0 at most 0.5·log(0.1·0.5) = −1.50, token 1 0.5·log(0.9·0.4) = −0.51
        (TOP, {1: 0.9}, {"alpha": 0.5}, NOTHING),
        # token 0 at most 0.5·log(0.5·0.5) = −0.69, token 1 0.5·log(0.5·0.4) = −0.80
        (TOP, {1: 0.5}, {"alpha": 0.5}, (False, (0,))),
    ],
)
def test_a_bounded_value_is_asked_for_only_where_its_token_could_win(base, other, settings, expected):
    assert lacking(base, other, **settings) == expected


@pytest.mark.parametrize(
    ("noise", "settings", "expected"),
    [
        ({}, {}, NOTHING),  # as above, by 11.08
        ({1: 1e-6}, {}, (False, (1,))),  # 13.8 more for token 1
        ({1: 0.01}, {"temperature": 2.0}, NOTHING),  # 5.54 apart, and 4.6 for token 1
        ({1: 0.001}, {"temperature": 2.0}, (False, (1,))),  # 6.9 for token 1
        ({}, {"top_p": 0.9}, (False, (1,))),  # how much it weighs decides what top-p keeps
        ({}, {"top_k": 5}, (False, (1,))),
    ],
)
def test_a_draw_is_bounded_likewise(noise, settings, expected):
    drawn = torch.ones((1, 99))
    for token, value in noise.items():
        drawn[0, token] = value
    values = {"temperature": 1.0, **ADDS, **settings}
    assert lacking(TOP, {0: 0.9}, noise=drawn, **values) == expected


def test_a_gated_step_that_is_plain_needs_no_more_than_the_best_token():
    assert lacking({0: 0.6}, {1: 0.8}, method=GATED) == NOTHING
    assert lacking({0: 0.6}, {0: 0.8}, method=GATED) == (True, ())


def test_a_greedy_plain_step_needs_no_more_than_the_best_token():
    assert lacking({0: 0.2}, method=PLAIN) == NOTHING


@pytest.mark.parametrize(
    ("quiet", "expected"),
    [
        (2, False),  # token 0 wins by far, whatever token 2 has
        (1e-9, True),  # token 2 is drawn with so little noise that it may have won
    ],
)
@pytest.mark.parametrize("gated", [True, False])
def test_a_plain_draw_is_certain_where_nothing_unknown_can_win(gated, quiet, expected):
    noise = torch.tensor([[0.5, 1.0, quiet, 1.0]])
    other = {"other": {1: 0.8}} if gated else {}
    method = GATED if gated else PLAIN
    found = lacking({0: 0.6, 1: 0.2}, method=method, noise=noise, vocab=4, temperature=1.0, **other)
    assert found == (expected, ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 2}, False),  # leaves out all that is not known
        ({"top_k": 3}, True),
        ({"top_p": 0.79}, False),  # 0.6 + 0.2 reach it
        ({"top_p": 0.81}, True),
        # at T = 2 the two weigh √0.6 + √0.2 = 1.22, and what is left 2·√0.1 = 0.63 if shared, √0.2 = 0.45 if
        # not: the first reaches 0.42 to 0.46
        ({"top_p": 0.40, "temperature": 2.0}, False),
        ({"top_p": 0.44, "temperature": 2.0}, True),
    ],
)
def test_what_top_k_and_top_p_leave_out_cannot_win(settings, expected):
    """Token 1 wins over token 0 where it is kept; tokens 2 and 3 would win over both."""
    noise = torch.tensor([[1.0, 1e-3, 1e-9, 1e-9]])
    values = {"temperature": 1.0, **settings}
    assert lacking({0: 0.6, 1: 0.2}, method=PLAIN, noise=noise, vocab=4, **values) == (expected, ())


@pytest.mark.parametrize("seed", range(6))
def test_a_certain_step_is_that_of_the_whole_distributions(seed):
    """Random distributions, cut to what a server would tell, against all of them."""
    generator = torch.Generator().manual_seed(seed)
    certain = 0
    for trial in range(60):
        spread = 1.0 + 3.0 * torch.rand(1, generator=generator)
        whole = spread * torch.randn((2, 1, 40), generator=generator)
        whole[1] = whole[0] + torch.randn((1, 40), generator=generator) * (trial % 3)
        whole = whole.log_softmax(-1)
        method = (ADACD, GATED, PLAIN)[trial % 3]
        settings = Settings(
            method=method.name,
            temperature=(0.0, 0.7, 1.6)[trial // 3 % 3],
            top_p=(1.0, 0.8)[trial // 9 % 2],
            top_k=(0, 4)[trial // 18 % 2],
            alpha=(4.5, 0.5)[trial % 2],
            min_p=(0.0, 0.3)[trial // 4 % 2],
            presence_penalty=(0.0, 1.5)[trial // 7 % 2],
        )
        process = partial(ScoreProcessor(settings, (), (), torch.device("cpu")), answer=(1, 2, 3, 30))
        noise = None
        if settings.temperature > 0:
            noise = torch.empty((1, 40)).exponential_(generator=generator)
        names = ("unprompted",) if method is PLAIN else ("unprompted", "prompted")
        streams = {}
        for name, row in zip(names, whole, strict=False):
            best = row[0].topk(5 + trial % 12)
            streams[name] = logits_of(best.indices.tolist(), best.values.tolist(), 40)
        if needs(method, settings, streams, noise):
            continue
        certain += 1
        rule = rule_of(method) if method is not PLAIN else default
        cut = {name: logits.at() for name, logits in streams.items()}
        full = {name: row for name, row in zip(names, whole, strict=False)}
        chosen = [
            unpack([pack_step(rule, each, settings, noise, process=process)])[0] for each in (cut, full)
        ]
        assert chosen[0].token_id == chosen[1].token_id
        assert chosen[0].decision == chosen[1].decision
    assert certain >= 15


def test_the_first_lists_reach_down_to_the_mask():
    streams = ("unprompted", "prompted")
    found = first_needs(ADACD, Settings(), streams, Report(candidates=3, top_logprobs=300))
    assert found["unprompted"].top == found["prompted"].top == 300
    assert found["unprompted"].floor == pytest.approx(math.log(0.01), abs=1e-3)
    assert found["prompted"].floor is None
    assert first_needs(GATED, Settings(), streams, Report())["unprompted"].floor is None
    assert first_needs(PLAIN, Settings(), streams[:1], Report(5)) == {"unprompted": Need(top=5)}
    assert first_needs(PLAIN, Settings(temperature=1.0), streams[:1], Report())["unprompted"].top > 1
    whole = first_needs(ADACD, Settings(plausibility=0.0), streams, Report())
    assert {need.floor for need in whole.values()} == {-math.inf}


def test_only_tokens_with_known_values_are_reported():
    streams = {"unprompted": known({0: 0.6, 1: 0.2}, 6), "prompted": known({2: 0.9}, 6)}
    packed = pack_step(
        rule_of(ADACD), {name: each.at() for name, each in streams.items()}, Settings(), None, Report(6, 6)
    )
    outcome = only_told(unpack([packed])[0], streams)
    assert {each.token_id for each in outcome.candidates} == {0, 1, 2}
    assert [token for token, _ in outcome.top_logprobs] == [0, 1]
    whole = {name: logits_of(range(3), [math.log(1 / 3)] * 3, 3) for name in streams}
    assert only_told(outcome, whole) == outcome


def test_a_token_that_the_backend_chose_is_a_plain_step():
    sampled = SampledToken(7, math.log(0.1), ((3, math.log(0.5)), (9, math.log(0.2)), (7, math.log(0.1))))
    outcome = outcome_of(sampled, Report(candidates=2, top_logprobs=1), vocab=9)
    assert (outcome.token_id, outcome.plain_token_id, outcome.decision) == (7, 7, Decision.PLAIN)
    assert outcome.measures.confidence == pytest.approx(0.5)
    assert outcome.logprob == pytest.approx(math.log(0.1))
    assert outcome.top_logprobs == ((3, math.log(0.5)),)
    assert outcome.candidates == (  # 9 is padding
        Candidate(3, "", None, math.log(0.5), math.log(0.5), True),
        Candidate(7, "", None, math.log(0.1), math.log(0.1), True),
    )
    assert outcome.exact
    short = outcome_of(sampled, Report(), vocab=9)
    assert (short.candidates, short.logprob, short.top_logprobs) == ((), None, ())
