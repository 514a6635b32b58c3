"""Sampling: the filters by table, the draw by its frequencies, and rows that do not disturb each other."""

from __future__ import annotations

import math

import pytest
import torch

from adacd_cli.config import Settings
from adacd_cli.engine.step import choose, draw_noise, make_generator

CPU = torch.device("cpu")
PROBABILITIES = (0.5, 0.25, 0.15, 0.07, 0.03)
SCORES = torch.tensor([[math.log(p) for p in PROBABILITIES]])


def frequencies(draws=4000, **settings):
    generator = make_generator(7, CPU)
    noise = draw_noise([generator] * draws, 5, CPU)
    chosen = choose(SCORES.expand(draws, -1), Settings(**settings), noise)
    return (torch.bincount(chosen, minlength=5) / draws).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, PROBABILITIES),
        ({"temperature": 1.0, "top_k": 2}, (2 / 3, 1 / 3, 0, 0, 0)),
        ({"temperature": 1.0, "top_k": 9}, PROBABILITIES),
        ({"temperature": 1.0, "top_p": 0.7}, (2 / 3, 1 / 3, 0, 0, 0)),
        ({"temperature": 1.0, "top_p": 0.01}, (1, 0, 0, 0, 0)),
        ({"temperature": 1.0, "top_p": 1e-300}, (1, 0, 0, 0, 0)),
        ({"temperature": 1e-320}, (1, 0, 0, 0, 0)),
        ({"temperature": 1e-40, "top_p": 0.5, "top_k": 2}, (1, 0, 0, 0, 0)),
        ({"temperature": 0.5}, tuple(p * p / sum(q * q for q in PROBABILITIES) for p in PROBABILITIES)),
        ({"temperature": 1e-6}, (1, 0, 0, 0, 0)),
        ({"temperature": 0.0}, (1, 0, 0, 0, 0)),
    ],
)
def test_tokens_come_as_often_as_they_should(settings, expected):
    assert frequencies(**settings) == pytest.approx(expected, abs=0.03)


def test_top_k_counts_before_top_p():
    # of the two that top-k leaves (2/3, 1/3), top-p .6 leaves one
    assert frequencies(temperature=1.0, top_k=2, top_p=0.6) == [1, 0, 0, 0, 0]


def test_an_implausible_token_is_never_drawn():
    scores = torch.tensor([[0.0, -math.inf, -math.inf, 0.0, -math.inf]]).expand(500, -1)
    noise = draw_noise([make_generator(1, CPU)] * 500, 5, CPU)
    assert set(choose(scores, Settings(temperature=5.0), noise).tolist()) == {0, 3}


def test_a_row_draws_the_same_noise_in_any_company():
    alone = draw_noise([make_generator(3, CPU)], 50, CPU)
    together = draw_noise([make_generator(8, CPU), make_generator(3, CPU)], 50, CPU)
    assert torch.equal(alone[0], together[1])
