"""SafeDecoding (Xu et al., ACL 2024): the first tokens lean towards an expert that was taught to refuse."""

from __future__ import annotations

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import (
    StepLogits,
    Verdict,
    all_rows,
    compare_streams,
    confidence_of,
    joint_rank,
    overlap_size,
)
from adacd_cli.engine.switches import ADD

_FLOOR = 1e-8


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """P(v) = max(pb(v) + α·(pe(v) − pb(v)), 1e-8) over the tokens that both top-k lists hold, normalised.

    k is the smallest that is at least c and at which the lists share at least c tokens. The scores are log P,
    −inf outside. pb is the base stream, pe the expert's.

    Args:
        logits: `base` and `expert`, finite, float32 [rows, vocab].
        settings: `safedecoding_strength` (α), `safedecoding_candidates` (c).
    """
    base, expert = logits["base"].softmax(dim=-1), logits["expert"].softmax(dim=-1)
    count = settings.safedecoding_candidates
    ranks = joint_rank(logits["base"], logits["expert"], count)
    shared = ranks <= overlap_size(ranks, count).clamp(min=count)
    mixed = (base + settings.safedecoding_strength * (expert - base)).clamp(min=_FLOOR)
    mixed = torch.where(shared, mixed, 0.0)
    scores = (mixed / mixed.sum(dim=-1, keepdim=True)).log()
    measures = compare_streams(logits["base"], logits["expert"]) | {"plausible_count": shared.sum(dim=-1)}
    return Verdict(scores, all_rows(ADD, base), confidence_of(logits["base"]), measures)
