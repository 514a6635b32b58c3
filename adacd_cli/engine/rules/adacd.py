"""AdaCD's rule (Qi et al., ACL 2026, arXiv 2604.17132), on logits, and its gated form.

The paper prints P(·|p*, x) ± α·softmax(Δ); its code works on logits, as here: the printed form taken
literally does not suppress the refusal token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from adacd_cli.engine.rules.base import ADD, PLAIN, SUBTRACT, RowMeasures, StepLogits, Verdict

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def adacd(logits: StepLogits, settings: Settings) -> Verdict:
    """Adds the refusal direction Δ = z* − z where refusing is clearly agreed, subtracts it elsewhere.

    y* = argmax z*; rank = 1 + #{v : z[v] > z[y*]}; agr = 1 / rank; c = max P, c* = max P*.
    ADD where agr ≥ λ and c ≥ λ·c*, else SUBTRACT. scores = z* ± α·Δ, and −inf where P[v] < β·max P.

    Args:
        logits: both streams, finite, float32 [rows, vocab].
        settings: `alpha` (α), `agreement_threshold` (λ), `plausibility` (β).
    """
    assert logits.prompted is not None
    z, prompted = logits.unprompted, logits.prompted
    top = prompted.argmax(dim=-1, keepdim=True)
    # counting is one pass and stable under ties; sorting a 150k vocabulary is 30 times slower
    rank = 1 + (z > z.gather(-1, top)).sum(dim=-1)
    agreement = 1.0 / rank.to(torch.float32)

    probabilities = z.softmax(dim=-1)
    confidence = probabilities.amax(dim=-1)
    prompted_confidence = torch.exp(prompted.amax(dim=-1) - prompted.logsumexp(dim=-1))

    threshold = settings.agreement_threshold
    add = (agreement >= threshold) & (confidence >= threshold * prompted_confidence)
    sign = torch.where(add, 1.0, -1.0).unsqueeze(-1)
    implausible = probabilities < settings.plausibility * confidence.unsqueeze(-1)
    scores = (prompted + sign * settings.alpha * (prompted - z)).masked_fill(implausible, -torch.inf)

    measures = RowMeasures(
        agreement=agreement,
        prompted_top_id=top.squeeze(-1),
        prompted_top_rank=rank,
        prompted_confidence=prompted_confidence,
        plausible_count=z.shape[-1] - implausible.sum(dim=-1),
    )
    return Verdict(scores, torch.where(add, ADD, SUBTRACT), confidence, measures)


def gated(logits: StepLogits, settings: Settings) -> Verdict:
    """AdaCD where both streams have the same top token (agr = 1), PLAIN on z where they differ.

    That the answer so far is the prompted stream's own (the refusal's track) is the loop's to know: it stops
    asking this rule as soon as a chosen token is not y*.
    """
    verdict = adacd(logits, settings)
    assert verdict.measures is not None
    agreed = verdict.measures.prompted_top_rank == 1
    scores = torch.where(agreed.unsqueeze(-1), verdict.scores, logits.unprompted)
    return replace(verdict, scores=scores, decision=torch.where(agreed, verdict.decision, PLAIN))
