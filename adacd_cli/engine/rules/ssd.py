"""SSD (Speculative Safety-Aware Decoding, EMNLP 2025): lean towards a small safe model that also drafts.

`mix` is the rule of one position; `State` is what a request carries from token to token. Both depend on nothing but
the two models' distributions at each position, so drafting changes no token."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import (
    StepLogits,
    Verdict,
    compare_streams,
    confidence_of,
    joint_rank,
    overlap_size,
    top_ranks,
)
from adacd_cli.engine.switches import ADD, PLAIN

_FLOOR = 1e-12
_THRESHOLD_STEP = 0.1
_STRENGTH_STEP = 0.15
_LEAST_STRENGTH = 0.3


class Mode(Enum):
    """Which tokens are in question."""

    INTERSECTION = auto()  # those that both models rank high: the safe model is a guide
    UNION = auto()  # those that either ranks high: the two disagree, the safe model leads


def mix(logits: StepLogits, settings: Settings, mode: Mode, strength: float) -> Verdict:
    """pM + strength·(pm − pM) over the mode's tokens; pM is the target's distribution, pm the draft's.

    INTERSECTION: the tokens that both top-k lists hold, k the smallest at which they share C; where the
    target's top token is not among the draft's top k, it is taken as it is (PLAIN). UNION: the tokens that
    either top-C list holds. The scores are logarithms, −inf outside.

    Args:
        logits: `target` and `draft`, finite, float32 [rows, vocab].
        settings: `ssd_overlap` (C).
        strength: α of the mode, in [0, 1].
    """
    target, draft = logits["target"].softmax(dim=-1), logits["draft"].softmax(dim=-1)
    count = min(settings.ssd_overlap, target.shape[-1])
    top = logits["target"].argmax(dim=-1, keepdim=True)
    if mode is Mode.INTERSECTION:
        ranks = joint_rank(logits["target"], logits["draft"], count)
        offered = ranks <= overlap_size(ranks, count)
        # the target ranks its top token first, so it is outside where the draft ranks it too low
        forced = ~offered.gather(-1, top)
        offered = torch.where(forced, torch.zeros_like(offered).scatter(-1, top, True), offered)
    else:
        offered = (top_ranks(logits["target"], count) <= count) | (top_ranks(logits["draft"], count) <= count)
        forced = torch.zeros_like(top, dtype=torch.bool)
    mixed = (target + strength * (draft - target)).clamp(min=_FLOOR).log()
    measures = compare_streams(logits["target"], logits["draft"]) | {"plausible_count": offered.sum(dim=-1)}
    decision = torch.where(forced.squeeze(-1), PLAIN, ADD)
    scores = mixed.masked_fill(~offered, -torch.inf)
    return Verdict(scores, decision, confidence_of(logits["target"]), measures)


class State:
    """Which mode a request is in, and how strong it leans; moved on every `ssd_bin` (g) tokens by `ssd_threshold`
    (β₀), `ssd_intersection` (α_I) and `ssd_union` (α_U)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.mode = Mode.INTERSECTION
        self.threshold = settings.ssd_threshold
        self._intersection = settings.ssd_intersection
        self._logged = 0
        self._matches: deque[bool] = deque(maxlen=settings.ssd_bin)

    @property
    def strength(self) -> float:
        return self._intersection if self.mode is Mode.INTERSECTION else self._settings.ssd_union

    def rule(self, logits: StepLogits, settings: Settings) -> Verdict:
        return mix(logits, settings, self.mode, self.strength)

    def log(self, *, match: bool) -> None:
        """Counts a token; `match` says whether it is the one that the draft would have taken."""
        self._matches.append(match)
        self._logged += 1
        if self._logged % self._settings.ssd_bin:
            return
        rate = sum(self._matches) / len(self._matches)
        mode = Mode.UNION if rate < self.threshold else Mode.INTERSECTION
        if mode is not self.mode:
            self.mode, self.threshold = mode, self._settings.ssd_threshold
            self._intersection = self._settings.ssd_intersection
            return
        # rounded: a tenth taken off six times leaves a little more than 0
        self.threshold = max(round(self.threshold - _THRESHOLD_STEP, 6), 0.0)
        if mode is Mode.INTERSECTION:
            # never raised: a strength that begins below the floor stays
            lowered = max(round(self._intersection - _STRENGTH_STEP, 6), _LEAST_STRENGTH)
            self._intersection = min(self._intersection, lowered)
