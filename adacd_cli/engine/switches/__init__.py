"""The switches: what decides between ADD, SUBTRACT and PLAIN, one file each, a pure function over rows.

`agreement` (the paper's) decides at every step. `mass` and `learned` know the model from a profile and decide once,
at the first token of the answer (`engine.first_token`): what is refused rightly stays in the model's own words, and
the prompted stream is opened only where it is needed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adacd_cli.events import Decision

DECISIONS = (Decision.PLAIN, Decision.ADD, Decision.SUBTRACT)  # a decision as a number is its place here
PLAIN, ADD, SUBTRACT = range(3)


class SwitchNumbers(BaseModel):
    """What a profile knows of a model's first token: the numbers of `mass` and `learned`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    openers: tuple[int, ...] = Field(min_length=1)  # the tokens that refusals begin with, at least one
    # tokens, means, weights: the features of `learned`: token ids, their mean log-probabilities (nats) over the
    # prompts that it was fitted on, and w; of the same length
    tokens: tuple[int, ...] = ()
    means: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    bias: float = 0.0  # b
    low: float = 0.0  # low, high: the thresholds τ_low ≤ τ_high of q
    high: float = 0.0
    margin: float = 0.0  # the threshold μ of `mass`, in nats

    @model_validator(mode="after")
    def _fits_together(self) -> SwitchNumbers:
        if not len(self.tokens) == len(self.means) == len(self.weights):
            raise ValueError("tokens, means and weights are of different lengths")
        if self.low > self.high or min((*self.openers, *self.tokens)) < 0:
            raise ValueError("low is above high, or a token is negative")
        return self
