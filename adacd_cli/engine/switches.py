"""The switches: what decides between ADD, SUBTRACT and PLAIN, a pure function over rows each.

`agreement` (the paper's) decides at every step: both streams agree on refusing, and the unprompted one is sure.
`mass` (how sure both streams are that the answer begins with a refusal) and `learned` (a logistic regression on the
first token's distribution, fitted by `adacd fit`) know the model from a profile and decide once, at the first token
(`FirstTokenSwitch`): what is refused rightly stays in the model's own words, and the prompted stream is opened
only where it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError
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


def agreement(
    rank: torch.Tensor, confidence: torch.Tensor, prompted_confidence: torch.Tensor, threshold: float
) -> torch.Tensor:
    """ADD where agr ≥ λ and c ≥ λ·c*, else SUBTRACT; index into DECISIONS, int64 [rows]. `rank` is that of y* in
    the unprompted stream, 1-based, int64 [rows], and agr = 1 / rank; c = max P and c* = max P* are float32 [rows],
    in [0, 1]; λ is in [0, 1]."""
    agrees = 1.0 / rank.to(torch.float32) >= threshold
    return torch.where(agrees & (confidence >= threshold * prompted_confidence), ADD, SUBTRACT)


def opener_logits(logits: torch.Tensor, openers: tuple[int, ...]) -> torch.Tensor:
    """logit(R) = log R − log(1 − R) of the mass R of these tokens, float32 [rows]; finite but for R = 0 or 1."""
    ids = torch.tensor(openers, device=logits.device)
    refusing = logits.index_select(-1, ids).logsumexp(dim=-1)
    return refusing - logits.index_fill(-1, ids, -torch.inf).logsumexp(dim=-1)


def mass(
    unprompted: torch.Tensor, prompted: torch.Tensor, numbers: SwitchNumbers
) -> tuple[torch.Tensor, torch.Tensor]:
    """R and R* are the masses of all openers in P and P*. Harmful where logit(R) − logit(R*) ≥ μ: ADD, but PLAIN
    where the model is about to refuse (R ≥ ½), in its own words. Harmless elsewhere: SUBTRACT where it is about to
    refuse, PLAIN where it is about to answer. From the logits of the first token, float32 [rows, vocab]; gives the
    index into DECISIONS, int64 [rows], and the difference in nats, float32 [rows]."""
    own = opener_logits(unprompted, numbers.openers)
    value = own - opener_logits(prompted, numbers.openers)
    harmful, refuses = value >= numbers.margin, own >= 0
    decision = torch.full_like(value, PLAIN, dtype=torch.int64)
    return decision.masked_fill(harmful & ~refuses, ADD).masked_fill(~harmful & refuses, SUBTRACT), value


def learned_score(logits: torch.Tensor, numbers: SwitchNumbers) -> torch.Tensor:
    """q = w·(log P[tokens] − means) + b, float32 [rows]; the higher, the more harmful the prompt looks."""
    device = logits.device
    ids = torch.tensor(numbers.tokens, dtype=torch.int64, device=device)
    means, weights = (torch.tensor(each, device=device) for each in (numbers.means, numbers.weights))
    values = logits.log_softmax(dim=-1).index_select(-1, ids)
    return (values - means) @ weights + numbers.bias


def learned(unprompted: torch.Tensor, numbers: SwitchNumbers) -> tuple[torch.Tensor, torch.Tensor]:
    """ADD where q ≥ τ_high and the model is about to answer, SUBTRACT where q < τ_low and it is about to refuse
    (the openers' mass R ≥ ½), else PLAIN; from the logits of the first token of the answer, float32 [rows, vocab].
    Gives the index into DECISIONS, int64 [rows], and q, float32 [rows]."""
    q = learned_score(unprompted, numbers)
    refuses = opener_logits(unprompted, numbers.openers) >= 0
    decision = torch.full_like(q, PLAIN, dtype=torch.int64)
    decision = decision.masked_fill((q >= numbers.high) & ~refuses, ADD)
    return decision.masked_fill((q < numbers.low) & refuses, SUBTRACT), q


@dataclass(frozen=True)
class FirstTokenSwitch:
    """A switch that decides once, for one request, by what is known of the model."""

    name: Literal["mass", "learned"]
    numbers: SwitchNumbers

    @property
    def needs_prompted(self) -> bool:
        return self.name == "mass"

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.numbers.openers if self.needs_prompted else (*self.numbers.tokens, *self.numbers.openers)

    def decide(self, logits: Mapping[str, torch.Tensor]) -> tuple[Decision, dict[str, float]]:
        """What the window does, and the numbers that it was decided by, for a trace, from the logits of the first
        token of the answer, the base stream first, float32 [1, vocab]."""
        rows = list(logits.values())
        if self.needs_prompted:
            decided, value = mass(rows[0], rows[1], self.numbers)
            limits = {"switch_high": self.numbers.margin}
        else:
            decided, value = learned(rows[0], self.numbers)
            limits = {"switch_low": self.numbers.low, "switch_high": self.numbers.high}
        decision, number = torch.stack([decided.double(), value.double()], dim=-1)[0].tolist()
        return DECISIONS[int(decision)], {"switch_value": number} | limits


def switch_for(settings: Settings, numbers: SwitchNumbers | None) -> FirstTokenSwitch | None:
    """The switch of a request, by what a profile knows of the model; None where the method has none or the switch
    is `agreement`. ConfigurationError where it needs a profile, or one that holds its numbers."""
    if settings.switch == "agreement" or not METHODS[settings.effective_method].switched:
        return None
    if numbers is None or (settings.switch == "learned" and not numbers.tokens):
        raise ConfigurationError(
            f"--switch {settings.switch} needs a profile of the model, and there is none.",
            "Make one with `adacd fit`, or name its file with --profile.",
        )
    return FirstTokenSwitch(settings.switch, numbers)
