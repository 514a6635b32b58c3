"""AdaCD's rule (Qi et al., ACL 2026, arXiv 2604.17132), on logits.

The paper prints P(·|p*, x) ± α·softmax(Δ); its code works on logits, as here: the printed form taken literally does
not suppress the refusal token."""

from __future__ import annotations

from dataclasses import replace

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import StepLogits, Verdict, all_rows, compare_streams
from adacd_cli.engine.switches import ADD, PLAIN, agreement


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """Adds the refusal direction Δ = z* − z where refusing is clearly agreed, subtracts it elsewhere (the switch
    `agreement`).

    y* = argmax z*; rank = 1 + #{v : z[v] > z[y*]}; agr = 1 / rank; c = max P, c* = max P*.
    ADD where agr ≥ λ and c ≥ λ·c*, else SUBTRACT. scores = z* ± α·Δ, and −inf where P[v] < β·max P.

    Args:
        logits: `unprompted` and `prompted`, finite, float32 [rows, vocab].
        settings: `alpha` (α), `agreement_threshold` (λ), `plausibility` (β).
    """
    return _contrasted(logits, settings, None)


def decided(logits: StepLogits, settings: Settings, decision: int, openers: tuple[int, ...] = ()) -> Verdict:
    """ADD or SUBTRACT, as was decided at the first token of the answer; SUBTRACT only on the refusal's track, where
    both streams have the same top token, and PLAIN on z elsewhere. At the first token `openers` are what refusals
    begin with: a model has several ways to begin one, and p* leads to one of them only, so SUBTRACT takes them all
    out, unless nothing else is plausible."""
    verdict = _contrasted(logits, settings, decision)
    if decision == ADD:
        return verdict
    if openers:
        ids = torch.tensor(openers, device=verdict.scores.device)
        others = verdict.scores.index_fill(-1, ids, -torch.inf)
        possible = others.isfinite().any(dim=-1)
        plain = on_track(verdict, logits["unprompted"])
        return replace(
            verdict,
            scores=torch.where(possible.unsqueeze(-1), others, plain.scores),
            decision=torch.where(possible, verdict.decision, plain.decision),
        )
    return on_track(verdict, logits["unprompted"])


def on_track(verdict: Verdict, unprompted: torch.Tensor) -> Verdict:
    """The verdict where agr = 1, PLAIN on z elsewhere. That the answer so far is the prompted stream's own is the
    loop's to know: it stops asking as soon as a chosen token is not y*."""
    agreed = verdict.measures["prompted_top_rank"] == 1
    scores = torch.where(agreed.unsqueeze(-1), verdict.scores, unprompted)
    return replace(verdict, scores=scores, decision=torch.where(agreed, verdict.decision, PLAIN))


def _contrasted(logits: StepLogits, settings: Settings, decision: int | None) -> Verdict:
    """The scores of a decision, ADD or SUBTRACT for all rows; None for what each row's agreement says."""
    z, prompted = logits["unprompted"], logits["prompted"]
    streams = compare_streams(z, prompted)
    rank = streams["prompted_top_rank"]
    probabilities = z.softmax(dim=-1)
    confidence = probabilities.amax(dim=-1)
    if decision is None:
        threshold = settings.agreement_threshold
        decisions = agreement(rank, confidence, streams["prompted_confidence"], threshold)
    else:
        decisions = all_rows(decision, z)
    sign = torch.where(decisions == ADD, 1.0, -1.0).unsqueeze(-1)
    implausible = probabilities < settings.plausibility * confidence.unsqueeze(-1)
    scores = (prompted + sign * settings.alpha * (prompted - z)).masked_fill(implausible, -torch.inf)

    plausible = z.shape[-1] - torch.count_nonzero(implausible, dim=-1)
    measures = streams | {"agreement": 1.0 / rank.to(torch.float32), "plausible_count": plausible}
    return Verdict(scores, decisions, confidence, measures)
