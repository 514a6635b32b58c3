"""What a switch saw at the first token, in words and on a small scale from harmless to harmful. The numbers are
those that `FirstTokenSwitch.decide` names; server/page/words.js says the same in JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adacd_cli.events import Decision, TokenStep

_NAMES = (
    "switch_value",
    "switch_low",
    "switch_high",
)  # the measures that are the switch's, and not the rule's

EXPLANATIONS = {
    "learned": "The switch decides once, at the answer's first token: q says how harmful the question looks. Below "
    "τ_low it looks harmless, and a refusal is pushed away (− subtract); from τ_high on it looks harmful, and an "
    "answer is turned towards a refusal (+ add). Everything else stays in the model's own words (· plain).",
    "mass": "The switch decides once, at the answer's first token. R and R*: how sure the plain and the prompted "
    "stream are to refuse. Where logit R − logit R* is below μ the question looks harmless, and a refusal is "
    "pushed away (− subtract); elsewhere it looks harmful, and an answer is turned towards a refusal (+ add). "
    "Everything else stays in the model's own words (· plain).",
}

_CELLS = {1: (6, 6), 2: (5, 4, 5)}  # of each zone of the scale, by the number of thresholds


@dataclass(frozen=True)
class Reading:
    """What the switch saw: its value and thresholds, in log-odds; the two are one with `mass`."""

    value: float
    low: float
    high: float
    learned: bool

    @property
    def zone(self) -> Decision:
        """What the value alone says: SUBTRACT harmless, ADD harmful, PLAIN in between."""
        if self.value >= self.high:
            return Decision.ADD
        return Decision.SUBTRACT if self.value < self.low else Decision.PLAIN

    @property
    def numbers(self) -> str:
        """`q = −1.3, τ_low = −0.4, τ_high = 1.2`"""
        value, low, high = _digits(self)
        if not self.learned:
            return f"logit R − logit R* = {value}, μ = {high}"
        limits = f"τ_low = τ_high = {low}" if self.low == self.high else f"τ_low = {low}, τ_high = {high}"
        return f"q = {value}, {limits}"

    @property
    def scale(self) -> tuple[float, tuple[float, ...]]:
        """Where the value and the thresholds lie on a line from 0 to 1. The zone is always the right one; beyond a
        threshold the distance d is drawn as d / (d + 1)."""
        ticks: tuple[float, ...] = (0.5,) if self.low == self.high else (0.35, 0.65)
        if self.zone is Decision.ADD:
            return ticks[-1] + (1 - ticks[-1]) * (1 - 1 / (1 + self.value - self.high)), ticks
        if self.zone is Decision.SUBTRACT:
            return ticks[0] / (1 + self.low - self.value), ticks
        return ticks[0] + (ticks[1] - ticks[0]) * (self.value - self.low) / (self.high - self.low), ticks

    def drawn(self) -> str:
        """`harmless ──●──┊────┊───── harmful`"""
        at, ticks = self.scale
        ends, text = (0.0, *ticks, 1.0), []
        place = {Decision.SUBTRACT: 0, Decision.PLAIN: 1, Decision.ADD: len(ticks)}[self.zone]
        for zone, cells in enumerate(_CELLS[len(ticks)]):
            line = ["─"] * cells
            if zone == place:
                share = (at - ends[zone]) / (ends[zone + 1] - ends[zone])
                line[min(int(share * cells), cells - 1)] = "●"
            text.append("".join(line))
        return f"harmless {'┊'.join(text)} harmful"


def reading(step: TokenStep) -> Reading | None:
    """What the switch saw at this step; None where it decided nothing here."""
    named = step.measures.named
    if "switch_value" not in named:
        return None
    high = named["switch_high"]
    return Reading(named["switch_value"], named.get("switch_low", high), high, "switch_low" in named)


def others(named: Mapping[str, float]) -> dict[str, float]:
    """The method's own numbers without the switch's."""
    return {name: value for name, value in named.items() if name not in _NAMES}


def looks(seen: Reading) -> str:
    """The beginning of a sentence: what kind of question the switch took it for, and by which numbers."""
    value, low, high = _digits(seen)
    harmful = seen.zone is Decision.ADD
    if not seen.learned:
        much, kind, sign = ("little", "harmful", "≥") if harmful else ("much", "harmless", "<")
        return (
            f"The contrast prompt makes a refusal so {much} more likely that the question looks {kind} "
            f"(logit R − logit R* = {value} {sign} μ = {high})"
        )
    where, test = "looks like that of a harmless question", f"q = {value} < τ_low = {low}"
    if harmful:
        where, test = "looks like that of a harmful question", f"q = {value} ≥ τ_high = {high}"
    elif seen.zone is Decision.PLAIN:
        where = "lies between those of harmless and harmful questions"
        test = f"τ_low = {low} ≤ q = {value} < τ_high = {high}"
    return f"The first token's distribution {where} ({test})"


def _digits(seen: Reading) -> tuple[str, str, str]:
    """The three numbers with so many digits that they do not contradict the zone."""
    numbers = seen.value, seen.low, seen.high
    for digits in (1, 2, 3, 4):
        value, low, high = (round(each, digits) for each in numbers)
        if Reading(value, low, high, seen.learned).zone is seen.zone:
            break
    first, second, third = (f"{each or 0:.{digits}f}".replace("-", "−") for each in (value, low, high))
    return first, second, third
