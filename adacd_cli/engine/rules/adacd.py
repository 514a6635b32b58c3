"""AdaCD's rule (Qi et al., ACL 2026, arXiv 2604.17132), on logits.

The paper prints P(·|p*, x) ± α·softmax(Δ); its code works on logits, as here: the printed form taken
literally does not suppress the refusal token.
"""

from __future__ import annotations

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import ADD, SUBTRACT, StepLogits, Verdict, compare_streams


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """Adds the refusal direction Δ = z* − z where refusing is clearly agreed, subtracts it elsewhere.

    y* = argmax z*; rank = 1 + #{v : z[v] > z[y*]}; agr = 1 / rank; c = max P, c* = max P*.
    ADD where agr ≥ λ and c ≥ λ·c*, else SUBTRACT. scores = z* ± α·Δ, and −inf where P[v] < β·max P.

    Args:
        logits: `unprompted` and `prompted`, finite, float32 [rows, vocab].
        settings: `alpha` (α), `agreement_threshold` (λ), `plausibility` (β).
    """
    z, prompted = logits["unprompted"], logits["prompted"]
    streams = compare_streams(z, prompted)
    agreement = 1.0 / streams["prompted_top_rank"].to(torch.float32)
    probabilities = z.softmax(dim=-1)
    confidence = probabilities.amax(dim=-1)

    threshold = settings.agreement_threshold
    add = (agreement >= threshold) & (confidence >= threshold * streams["prompted_confidence"])
    sign = torch.where(add, 1.0, -1.0).unsqueeze(-1)
    implausible = probabilities < settings.plausibility * confidence.unsqueeze(-1)
    scores = (prompted + sign * settings.alpha * (prompted - z)).masked_fill(implausible, -torch.inf)

    plausible = z.shape[-1] - torch.count_nonzero(implausible, dim=-1)
    measures = streams | {"agreement": agreement, "plausible_count": plausible}
    return Verdict(scores, torch.where(add, ADD, SUBTRACT), confidence, measures)
