"""What of a server's numbers is accepted, by hand-computed lists."""

from __future__ import annotations

import math

import pytest

from adacd_cli.backends.server.dialect import (
    InvalidLogprobs,
    ServerRefused,
    TopList,
    logprob_of,
    sampled_token,
    token_of,
)


def listed(probabilities: dict[int, float]) -> TopList:
    """A list of these probabilities by id."""
    return TopList.of([(token, math.log(p)) for token, p in probabilities.items()], 99)


def test_values_that_stand_for_minus_infinity_are_no_values():
    top = TopList.of([(5, -9999.0), (2, -1.0), (4, -3.4e38), (1, -0.5)], 3)
    assert top == TopList((1, 2), (-0.5, -1.0))


def test_of_equal_values_the_lower_id_comes_first():
    assert TopList.of([(9, -2.0), (4, -2.0), (6, -0.5)], 2).ids == (6, 4)


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [
        ([(5, -9999.0), (2, -math.inf)], ServerRefused),
        ([], ServerRefused),
        ([(5, -1.0), (5, -2.0)], InvalidLogprobs),
        ([(5, -0.1), (6, -0.1)], InvalidLogprobs),  # together 1.81
    ],
)
def test_lists_that_cannot_be_are_refused(pairs, kind):
    with pytest.raises(ServerRefused) as error:
        TopList.of(pairs, 5)
    assert type(error.value) is kind


@pytest.mark.parametrize("value", [True, "-1.5", [], 3.0, math.nan, math.inf, None])
def test_what_is_no_logprob_is_refused(value):
    with pytest.raises(InvalidLogprobs):
        logprob_of(value)


def test_what_is_rounded_and_what_stands_for_minus_infinity_are_logprobs():
    assert [logprob_of(value) for value in (0, 1e-6, -2.5, -math.inf)] == [0.0, 1e-6, -2.5, -math.inf]
    assert logprob_of(-(10**400)) == logprob_of(-9999.0) == -math.inf


@pytest.mark.parametrize("value", [-3, True, "5", 2.0, None, 2**63])
def test_what_is_no_id_is_refused(value):
    with pytest.raises(InvalidLogprobs, match="as a token's id"):
        token_of(value)


def test_a_token_without_a_probability_cannot_have_been_chosen():
    with pytest.raises(InvalidLogprobs, match="no probability"):
        sampled_token(3, -9999.0, [(4, -0.1)], 1)
    token = sampled_token(3, -2.5, [(3, -2.5), (4, -0.1)], 1)
    assert (token.token_id, token.logprob, token.top, token.last) == (3, -2.5, ((4, -0.1),), False)


def test_ids_beyond_the_vocabulary_may_only_be_implausible():
    padded = listed({0: 0.9, 1: 0.05, 99: 0.005})
    padded.check(99)  # below 0.01 · 0.9, as a model's padding
    padded.check(99, -math.inf)
    padded.check(99, math.log(0.5))
    with pytest.raises(InvalidLogprobs, match="the id 99, beyond the tokenizer's 99 tokens"):
        padded.check(99, math.log(0.001))
    with pytest.raises(InvalidLogprobs):
        listed({0: 0.9, 1: 0.05, 99: 0.01}).check(99)
    with pytest.raises(InvalidLogprobs):  # the best one always matters
        listed({99: 0.9, 0: 0.05}).check(99, -math.inf)


def test_what_is_not_listed_must_be_able_to_make_up_the_rest():
    listed({0: 0.5, 1: 0.005}).check(102)  # 100 · 0.005 make it whole
    listed({0: 0.7, 1: 0.295}).check(2)
    with pytest.raises(InvalidLogprobs, match=r"add up to 0\.904 at most"):
        listed({0: 0.5, 1: 0.004}).check(102)
