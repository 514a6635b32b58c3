"""The switch `agreement`, the paper's: both streams agree on refusing, and the unprompted one is sure of it."""

from __future__ import annotations

import torch

from adacd_cli.engine.switches import ADD, SUBTRACT


def decide(
    rank: torch.Tensor, confidence: torch.Tensor, prompted_confidence: torch.Tensor, threshold: float
) -> torch.Tensor:
    """ADD where agr ≥ λ and c ≥ λ·c*, else SUBTRACT; index into DECISIONS, int64 [rows]. `rank` is that of y* in
    the unprompted stream, 1-based, int64 [rows], and agr = 1 / rank; c = max P and c* = max P* are float32 [rows],
    in [0, 1]; λ is in [0, 1]."""
    agrees = 1.0 / rank.to(torch.float32) >= threshold
    return torch.where(agrees & (confidence >= threshold * prompted_confidence), ADD, SUBTRACT)
