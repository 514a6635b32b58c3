"""The switch `mass`: how sure both streams are that the answer begins with a refusal."""

from __future__ import annotations

import torch

from adacd_cli.engine.switches import ADD, PLAIN, SUBTRACT, SwitchNumbers


def opener_logits(logits: torch.Tensor, openers: tuple[int, ...]) -> torch.Tensor:
    """logit(R) = log R − log(1 − R) of the mass R of these tokens, float32 [rows]; finite but for R = 0 or 1."""
    ids = torch.tensor(openers, device=logits.device)
    refusing = logits.index_select(-1, ids).logsumexp(dim=-1)
    return refusing - logits.index_fill(-1, ids, -torch.inf).logsumexp(dim=-1)


def decide(
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
