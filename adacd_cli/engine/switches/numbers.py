"""What a profile knows of a model's first token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SwitchNumbers:
    """The numbers of the switches `mass` and `learned`.

    Attributes:
        openers: the tokens that refusals begin with, at least one.
        tokens, means, weights: the features of `learned`: token ids, their mean log-probabilities (nats) over the
            prompts that it was fitted on, and w; of the same length.
        bias: b.
        low, high: the thresholds τ_low ≤ τ_high of q.
        margin: the threshold μ of `mass`, in nats.
    """

    openers: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    means: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    low: float = 0.0
    high: float = 0.0
    margin: float = 0.0
