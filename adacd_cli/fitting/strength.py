"""α and β of a contrast prompt, by the rule on stored first tokens; and the threshold of the switch `mass`."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules import adacd
from adacd_cli.engine.switches import ADD, SUBTRACT
from adacd_cli.engine.switches.mass import opener_logits
from adacd_cli.fitting.learn import MOST_LOST, threshold_below

ALPHAS, BETAS = (1.0, 2.0, 3.0, 4.5, 6.0), (0.01, 0.001)


class Strength(NamedTuple):
    """α, β, and μ of the switch `mass`."""

    alpha: float
    plausibility: float
    margin: float


def choose_strength(
    unprompted: torch.Tensor, prompted: torch.Tensor, openers: tuple[int, ...], subtracted: int, added: int
) -> Strength:
    """The gentlest strengths with which the most first tokens are what is wanted.

    Args:
        unprompted, prompted: logits, float32 [prompts, tokens]: first the prompts where the switch subtracts, then
            those where it adds, then harmful ones that the model refuses.
        openers: where the openers of refusals stand in them.
    """
    slices = {SUBTRACT: slice(0, subtracted), ADD: slice(subtracted, subtracted + added)}

    def succeed(alpha: float, beta: float) -> int:
        settings, count = Settings(alpha=alpha, plausibility=beta), 0
        for decision, rows in slices.items():
            logits = {"unprompted": unprompted[rows], "prompted": prompted[rows]}
            if len(logits["unprompted"]):
                chosen = adacd.decided(logits, settings, decision, openers).scores.argmax(dim=-1)
                refuses = torch.isin(chosen, torch.tensor(openers))
                count += int((refuses if decision == ADD else ~refuses).sum())
        return count

    # of equals the gentlest: max() keeps the first
    alpha, beta = max(product(ALPHAS, BETAS), key=lambda pair: succeed(*pair))
    harmful = slice(subtracted + added, None)
    own, other = (
        opener_logits(each[harmful], openers).clamp(-30, 30).double() for each in (unprompted, prompted)
    )
    values = (own - other).numpy()
    return Strength(alpha, beta, threshold_below(values, len(values), MOST_LOST) if len(values) else 0.0)
