"""Default: plain decoding on the unprompted stream; also what every method does outside its window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adacd_cli.engine.rules.base import PLAIN, StepLogits, Verdict

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def default(logits: StepLogits, settings: Settings) -> Verdict:
    """Scores are z itself; the decision is PLAIN."""
    z = logits.unprompted
    # max softmax z without the softmax: one pass, nothing of the vocabulary's size is written
    confidence = torch.exp(z.amax(dim=-1) - z.logsumexp(dim=-1))
    decision = torch.full((z.shape[0],), PLAIN, dtype=torch.int64, device=z.device)
    return Verdict(z, decision, confidence)
