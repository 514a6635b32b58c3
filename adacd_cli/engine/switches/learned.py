"""The switch `learned`: a logistic regression on the first token's distribution, fitted by `adacd fit`."""

from __future__ import annotations

import torch

from adacd_cli.engine.switches import ADD, PLAIN, SUBTRACT, SwitchNumbers
from adacd_cli.engine.switches.mass import opener_logits


def score(logits: torch.Tensor, numbers: SwitchNumbers) -> torch.Tensor:
    """q = w·(log P[tokens] − means) + b, float32 [rows]; the higher, the more harmful the prompt looks."""
    device = logits.device
    ids = torch.tensor(numbers.tokens, dtype=torch.int64, device=device)
    means, weights = (torch.tensor(each, device=device) for each in (numbers.means, numbers.weights))
    values = logits.log_softmax(dim=-1).index_select(-1, ids)
    return (values - means) @ weights + numbers.bias


def decide(unprompted: torch.Tensor, numbers: SwitchNumbers) -> tuple[torch.Tensor, torch.Tensor]:
    """ADD where q ≥ τ_high and the model is about to answer, SUBTRACT where q < τ_low and it is about to refuse
    (the openers' mass R ≥ ½), else PLAIN; from the logits of the first token of the answer, float32 [rows, vocab].
    Gives the index into DECISIONS, int64 [rows], and q, float32 [rows]."""
    q = score(unprompted, numbers)
    refuses = opener_logits(unprompted, numbers.openers) >= 0
    decision = torch.full_like(q, PLAIN, dtype=torch.int64)
    decision = decision.masked_fill((q >= numbers.high) & ~refuses, ADD)
    return decision.masked_fill((q < numbers.low) & refuses, SUBTRACT), q
