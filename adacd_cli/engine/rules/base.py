"""What goes into a rule and what comes out: tensors over the rows of a batch.

A rule is a pure function (StepLogits, Settings) -> Verdict. It knows no cache and no tokenizer, so a
five-token vocabulary tests it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adacd_cli.events import Decision

if TYPE_CHECKING:
    from adacd_cli.config import Settings

DECISIONS = (Decision.PLAIN, Decision.ADD, Decision.SUBTRACT)
"""A decision as a number in a tensor is its place here."""

PLAIN, ADD, SUBTRACT = range(3)


@dataclass(frozen=True)
class StepLogits:
    """The next-token logits of one step.

    Attributes:
        prompted: z*, float32 [rows, vocab]; None where the method has no prompted stream.
        unprompted: z, float32 [rows, vocab].
    """

    prompted: torch.Tensor | None
    unprompted: torch.Tensor


@dataclass(frozen=True)
class RowMeasures:
    """The numbers a contrastive rule decided on, one of each per row.

    Attributes:
        agreement: agr(n) = 1 / rank, float32 [rows], in (0, 1].
        prompted_top_id: y* = argmax z*, int64 [rows].
        prompted_top_rank: 1 + how many tokens z puts above y*, int64 [rows].
        prompted_confidence: c* = max P*, float32 [rows], in [0, 1].
        plausible_count: tokens the plausibility mask kept, int64 [rows].
    """

    agreement: torch.Tensor
    prompted_top_id: torch.Tensor
    prompted_top_rank: torch.Tensor
    prompted_confidence: torch.Tensor
    plausible_count: torch.Tensor


@dataclass(frozen=True)
class Verdict:
    """What a rule says of a step.

    Attributes:
        scores: what the token is chosen by, float32 [rows, vocab]; -inf marks an implausible token.
        decision: index into DECISIONS, int64 [rows].
        confidence: c = max P, float32 [rows], in [0, 1].
        measures: the numbers of a contrastive rule; None for a plain one.
    """

    scores: torch.Tensor
    decision: torch.Tensor
    confidence: torch.Tensor
    measures: RowMeasures | None = None


Rule = Callable[[StepLogits, "Settings"], Verdict]


@dataclass(frozen=True)
class Method:
    """A decoding method: its name, what it needs, and its rule.

    Attributes:
        name: as `--method` takes it.
        summary: one sentence for help and documentation.
        rule: the rule of its contrast window.
        contrasts: whether it needs a prompted stream during the window.
        follows_track: whether a request leaves the window with the first token that is not y*.
    """

    name: str
    summary: str
    rule: Rule
    contrasts: bool
    follows_track: bool = False
