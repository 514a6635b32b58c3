"""Default: plain decoding on the base stream; also what every method does outside its window."""

from __future__ import annotations

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules.base import StepLogits, Verdict, all_rows, confidence_of
from adacd_cli.engine.switches import PLAIN


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """Scores are z itself; the decision is PLAIN."""
    z = next(iter(logits.values()))
    return Verdict(z, all_rows(PLAIN, z), confidence_of(z))
