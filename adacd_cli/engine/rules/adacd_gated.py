"""Gated AdaCD, ours: AdaCD where both streams have the same top token, plain decoding where they differ."""

from __future__ import annotations

from adacd_cli.config.settings import Settings
from adacd_cli.engine.rules import adacd
from adacd_cli.engine.rules.base import StepLogits, Verdict


def rule(logits: StepLogits, settings: Settings) -> Verdict:
    """AdaCD's verdict on the refusal's track, plain decoding elsewhere; see `adacd.on_track`."""
    return adacd.on_track(adacd.rule(logits, settings), logits["unprompted"])
