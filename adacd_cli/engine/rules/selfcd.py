"""Self-CD (Shi et al., ACL 2024): the difference that a safety prompt makes is taken off, at every token."""

from __future__ import annotations

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import StepLogits, Verdict, all_rows, compare_streams, confidence_of
from adacd_cli.engine.switches import SUBTRACT


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """scores = zs − a·(zs − zn), without a mask; zn is the stream `plain`, zs the safety-prompted `safe`, finite,
    float32 [rows, vocab]; a is `selfcd_strength`."""
    plain, safe = logits["plain"], logits["safe"]
    scores = safe - settings.selfcd_strength * (safe - plain)
    return Verdict(scores, all_rows(SUBTRACT, plain), confidence_of(plain), compare_streams(plain, safe))
