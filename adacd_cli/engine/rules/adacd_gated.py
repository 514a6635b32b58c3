"""Gated AdaCD, ours: AdaCD where both streams have the same top token, plain decoding where they differ."""

from __future__ import annotations

from dataclasses import replace

import torch

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules import adacd
from adacd_cli.engine.rules.base import PLAIN, StepLogits, Verdict


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """AdaCD's verdict where agr = 1, PLAIN on z elsewhere.

    That the answer so far is the prompted stream's own (the refusal's track) is the loop's to know: it stops
    asking this rule as soon as a chosen token is not y*.
    """
    verdict = adacd.rule(logits, settings)
    agreed = verdict.measures["prompted_top_rank"] == 1
    scores = torch.where(agreed.unsqueeze(-1), verdict.scores, logits["unprompted"])
    return replace(verdict, scores=scores, decision=torch.where(agreed, verdict.decision, PLAIN))
