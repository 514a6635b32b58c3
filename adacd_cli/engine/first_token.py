"""A switch that decides once for an answer, at its first token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules import adacd
from adacd_cli.engine.rules.base import Rule
from adacd_cli.engine.switches import DECISIONS, SwitchNumbers, learned, mass
from adacd_cli.errors import ConfigurationError
from adacd_cli.events import Decision

if TYPE_CHECKING:
    from adacd_cli.profiles.store import Profile


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

    @staticmethod
    def rule(decision: Decision, openers: tuple[int, ...]) -> Rule:
        """The rule of the window where it does something; `openers`: see `adacd.decided`."""
        return partial(adacd.decided, decision=DECISIONS.index(decision), openers=openers)


def switch_for(settings: Settings, profile: Profile | None) -> FirstTokenSwitch | None:
    """The switch of a request; None where the method has none or the switch is `agreement`. ConfigurationError
    where it needs a profile, or one that holds its numbers."""
    if settings.switch == "agreement" or not METHODS[settings.effective_method].switched:
        return None
    numbers = profile.numbers if profile else None
    if numbers is None or (settings.switch == "learned" and not numbers.tokens):
        raise ConfigurationError(
            f"--switch {settings.switch} needs a profile of the model, and there is none.",
            "Make one with `adacd fit`, or name its file with --profile.",
        )
    return FirstTokenSwitch(settings.switch, numbers)
