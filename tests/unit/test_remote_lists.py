"""Lists of log-probabilities as rows for the rules, and when a step's token is certain; computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.remote.dialects.base import TopList, Unbelievable, logprob_of, token_of
from adacd_cli.remote.failures import ServerRefused
from adacd_cli.remote.lists import Lacking, check_ids, check_rest, dense, is_certain, lacking


def listed(probabilities: dict[int, float]) -> TopList:
    """A list of these probabilities by id."""
    return TopList.of([(token, math.log(p)) for token, p in probabilities.items()], 99)


def test_the_rest_of_the_probability_is_shared_equally_by_what_is_not_listed():
    row = dense(listed({3: 0.5, 1: 0.3}), vocab=6)
    expected = torch.tensor([[0.05, 0.3, 0.05, 0.5, 0.05, 0.05]])
    torch.testing.assert_close(row.exp(), expected)
    torch.testing.assert_close(row.softmax(dim=-1), expected)


def test_a_whole_list_is_the_distribution_itself():
    row = dense(listed({0: 0.1, 1: 0.2, 2: 0.7}), vocab=3)
    torch.testing.assert_close(row.exp(), torch.tensor([[0.1, 0.2, 0.7]]))


def test_what_is_not_listed_never_rises_above_what_is():
    """Rounding may leave more than there is: 1 - 0.9 = 0.1 for one token, beside a listed 0.05."""
    row = dense(listed({0: 0.85, 1: 0.05}), vocab=3)
    assert row[0, 2] == row[0, 1]


def test_listed_probabilities_that_add_up_to_more_than_one_leave_next_to_nothing():
    row = dense(listed({0: 0.9, 1: 0.10001}), vocab=1000)
    assert row.isfinite().all()
    assert row[0, 2:].exp().sum() < 1e-20


def test_ids_beyond_the_vocabulary_are_padding():
    row = dense(listed({0: 0.6, 7: 0.1}), vocab=4)
    assert row.shape == (1, 4)
    torch.testing.assert_close(row.exp(), torch.tensor([[0.6, 0.1, 0.1, 0.1]]))


def test_values_that_stand_for_minus_infinity_are_no_values():
    top = TopList.of([(5, -9999.0), (2, -1.0), (4, -3.4e38), (1, -0.5)], 3)
    assert top == TopList((1, 2), (-0.5, -1.0))


def test_of_equal_values_the_lower_id_comes_first():
    assert TopList.of([(9, -2.0), (4, -2.0), (6, -0.5)], 2).ids == (6, 4)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([(5, -9999.0), (2, -math.inf)], "it gives no log-probabilities"),
        ([], "it gives no log-probabilities"),
        ([(5, -1.0), (5, -2.0)], "it gives two log-probabilities of one token"),
        ([(5, -0.1), (6, -0.1)], "the probabilities that it gives add up to 1.81"),
    ],
)
def test_lists_that_cannot_be_are_refused(pairs, reason):
    with pytest.raises(ServerRefused) as error:
        TopList.of(pairs, 5)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "it gives true as a log-probability"),
        ("-1.5", 'it gives "-1.5" as a log-probability'),
        ([], "it gives a list as a log-probability"),
        (3.0, "it gives 3 as a log-probability"),
        (math.nan, "it gives nan as a log-probability"),
        (math.inf, "it gives inf as a log-probability"),
        (None, "it leaves out the values of its log-probabilities"),
    ],
)
def test_what_is_no_logprob_is_refused(value, reason):
    with pytest.raises(Unbelievable) as error:
        logprob_of(value)
    assert error.value.reason == reason


def test_what_is_rounded_and_what_stands_for_minus_infinity_are_logprobs():
    assert [logprob_of(value) for value in (0, 1e-6, -2.5, -math.inf)] == [0.0, 1e-6, -2.5, -math.inf]
    assert logprob_of(-(10**400)) == logprob_of(-9999.0) == -math.inf


@pytest.mark.parametrize("value", [-3, True, "5", 2.0, None, 2**63])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(Unbelievable, match="as a token's id"):
        token_of(value)


def test_ids_beyond_the_vocabulary_may_only_be_implausible():
    padded = listed({0: 0.9, 1: 0.05, 99: 0.001})
    check_ids(padded, vocab=99, plausibility=0.01)
    check_ids(padded, vocab=99, plausibility=0.0)
    with pytest.raises(Unbelievable) as error:
        check_ids(padded, vocab=99, plausibility=0.001)
    assert (
        error.value.reason == "it gave the id 99, beyond the tokenizer's 99 tokens: it has another tokenizer"
    )
    with pytest.raises(Unbelievable):  # the best one always matters
        check_ids(listed({99: 0.9, 0: 0.05}), vocab=99, plausibility=0.0)


def test_what_is_not_listed_must_be_able_to_make_up_the_rest():
    check_rest(listed({0: 0.5, 1: 0.005}), vocab=102)  # 100 · 0.005 make it whole
    check_rest(listed({0: 0.7, 1: 0.295}), vocab=2)
    with pytest.raises(Unbelievable) as error:
        check_rest(listed({0: 0.5, 1: 0.004}), vocab=102)
    assert error.value.reason == "the probabilities that it gives leave room for 0.904 of all at most"


def test_padding_without_a_mask_makes_a_step_uncertain():
    whole = listed({0: 0.7, 1: 0.2, 3: 0.1})  # 3 is beyond
    assert lacking(whole, whole, Settings(plausibility=0.0), 3, gated=False, noise=None) == Lacking(True)


LONG = {0: 0.60, 1: 0.30, 2: 0.005}  # goes on below 0.01 · 0.60
SHORT = {0: 0.60, 1: 0.30}
OTHER = {1: 0.8, 0: 0.1}


@pytest.mark.parametrize(
    ("unprompted", "prompted", "settings", "expected"),
    [
        (LONG, OTHER, {}, Lacking()),
        (LONG, {1: 0.8}, {}, Lacking(tokens=(0,))),  # 0 is plausible and has no P*
        (SHORT, OTHER, {}, Lacking(unprompted=True)),  # a third token may be plausible
        (SHORT, OTHER, {"plausibility": 0.6}, Lacking()),  # 0.30 < 0.6 · 0.60: nothing else can be
        (LONG, {0: 0.9}, {"plausibility": 0.6}, Lacking()),  # 1 is not plausible
        (LONG, OTHER, {"plausibility": 0.0}, Lacking(True, (2,))),  # every token counts
        (SHORT, {1: 0.8}, {}, Lacking(True, (0,))),
        ({0: 0.9}, {0: 0.9}, {"plausibility": 1.0}, Lacking(unprompted=True)),  # one that ties may follow
        ({0: 0.5, 1: 0.4}, {0: 0.5, 1: 0.5}, {"plausibility": 1.0}, Lacking()),
    ],
)
def test_every_plausible_token_must_have_its_value_in_both_lists(unprompted, prompted, settings, expected):
    found = lacking(listed(unprompted), listed(prompted), Settings(**settings), 99, gated=False, noise=None)
    assert found == expected


def test_values_that_are_known_besides_count():
    unprompted, prompted, others = listed(LONG), listed({1: 0.8}), {0: math.log(0.001)}
    assert not lacking(unprompted, prompted, Settings(), 99, gated=False, noise=None, others=others)
    row = dense(prompted, 4, others)
    torch.testing.assert_close(row.exp(), torch.tensor([[0.001, 0.8, 0.0995, 0.0995]]))


def test_whole_lists_lack_nothing_even_without_a_mask():
    everything = listed({0: 0.7, 1: 0.2, 2: 0.1})
    assert not lacking(everything, everything, Settings(plausibility=0.0), 3, gated=False, noise=None)


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
    unprompted, prompted = listed({0: 0.6, 1: 0.3, 2: 0.001}), listed({7: 0.5, 0: 0.3, 1: 0.1})
    settings = Settings(agreement_threshold=threshold)
    found = lacking(unprompted, prompted, settings, 99, gated=False, noise=None)
    assert found == Lacking(unprompted=expected)


def test_a_rank_does_not_matter_where_the_confidence_says_subtract():
    unprompted, prompted = listed({0: 0.15, 1: 0.1, 2: 0.001}), listed({7: 0.9, 0: 0.05, 1: 0.04})
    settings = Settings(agreement_threshold=0.2)  # 0.15 < 0.2 · 0.9
    assert not lacking(unprompted, prompted, settings, 99, gated=False, noise=None)


def test_a_gated_step_that_is_plain_needs_no_more_than_the_best_token():
    assert not lacking(listed({0: 0.6}), listed({1: 0.8}), Settings(), 99, gated=True, noise=None)
    assert lacking(listed({0: 0.6}), listed({0: 0.8}), Settings(), 99, gated=True, noise=None) == Lacking(
        True
    )


@pytest.mark.parametrize(
    ("quiet", "expected"),
    [
        (2, False),  # token 0 wins by far, whatever token 2 has
        (1e-9, True),  # token 2 is drawn with so little noise that it may have won
    ],
)
def test_a_gated_step_that_is_drawn_plainly_is_certain_where_nothing_unlisted_can_win(quiet, expected):
    noise = torch.tensor([[0.5, 1.0, quiet, 1.0]])
    settings = Settings(temperature=1.0)
    found = lacking(listed({0: 0.6, 1: 0.2}), listed({1: 0.8}), settings, 4, gated=True, noise=noise)
    assert found == Lacking(unprompted=expected)
    assert is_certain(listed({0: 0.6, 1: 0.2}), settings, 4, noise) is not expected
