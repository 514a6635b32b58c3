"""What goes into a rule and what comes out: tensors over the rows of a batch.

A rule is a pure function (StepLogits, Settings) -> Verdict. It knows no cache and no tokenizer, so a five-token
vocabulary tests it. A method whose rule has a state from token to token gives a class `State` besides (see `ssd`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from adacd_cli.config.settings import Settings

_LISTED = 8  # how many times as long as the shared tokens asked for the first lists are, and each next one


# the next-token logits of one step by the stream's name, float32 [rows, vocab]; the base stream comes first
StepLogits = Mapping[str, torch.Tensor]
# Numbers by name, one of each per row: float32 or int64 [rows], below 2^24. The names of `events.Measures` mean
# what they mean there; any other is the method's own, and is shown under its name.
RowMeasures = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Verdict:
    """What a rule says of a step."""

    # what the token is chosen by, float32 [rows, vocab]; -inf marks an implausible token
    scores: torch.Tensor
    decision: torch.Tensor  # index into DECISIONS, int64 [rows]
    confidence: torch.Tensor  # c = max P, float32 [rows], in [0, 1]
    # what the streams say of each other; empty where there is only one
    measures: RowMeasures = field(default_factory=dict)


Rule = Callable[[StepLogits, Settings], Verdict]


def compare_streams(base: torch.Tensor, other: torch.Tensor) -> dict[str, torch.Tensor]:
    """The other stream's top token y*, int64 [rows]; its rank in the base stream, 1 + how many tokens that puts
    above y*, int64 [rows]; and c*, the other's largest probability, float32 [rows], in [0, 1]."""
    top = other.argmax(dim=-1, keepdim=True)
    return {
        "prompted_top_id": top.squeeze(-1),
        # counting is one pass and stable under ties; sorting a 150k vocabulary is 30 times slower
        "prompted_top_rank": 1 + torch.count_nonzero(base > base.gather(-1, top), dim=-1),
        "prompted_confidence": confidence_of(other),
    }


def confidence_of(logits: torch.Tensor) -> torch.Tensor:
    """max softmax(logits) of each row, float32 [rows], without writing anything of the vocabulary's size."""
    return torch.exp(logits.amax(dim=-1) - logits.logsumexp(dim=-1))


def all_rows(decision: int, logits: torch.Tensor) -> torch.Tensor:
    """The same decision for every row, int64 [rows]."""
    return torch.full((logits.shape[0],), decision, dtype=torch.int64, device=logits.device)


def joint_rank(first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
    """For each token the smallest k whose top-k lists both hold it, int64 [rows, vocab], 1-based. Among equal
    scores the lower id ranks first. Ranks above the k at which both lists hold `count` tokens, and above `count`,
    need not be exact, only no lower than that."""
    size = _LISTED * count
    while size < first.shape[-1]:
        ranks = torch.maximum(top_ranks(first, size), top_ranks(second, size))
        if bool((overlap_size(ranks, count) <= size).all()):
            return ranks
        size *= _LISTED
    return torch.maximum(top_ranks(first, first.shape[-1]), top_ranks(second, first.shape[-1]))


def top_ranks(scores: torch.Tensor, size: int) -> torch.Tensor:
    """The ranks of a row's `size` best tokens, 1-based, and the vocabulary's size for most others, int64 [rows,
    vocab]; exact up to `size`, above it elsewhere. Sorting all of a 150k vocabulary takes longer than a step of a
    small model."""
    least = scores.topk(size, dim=-1).values[:, -1:]
    ranks = torch.full_like(scores, scores.shape[-1], dtype=torch.int64)
    for row, kept in enumerate(scores >= least):
        ids = kept.nonzero().squeeze(-1)  # ascending, and every token that ties with the last
        order = scores[row, ids].argsort(descending=True, stable=True)
        ranks[row, ids[order]] = torch.arange(1, len(ids) + 1, device=scores.device)
    return ranks


def overlap_size(ranks: torch.Tensor, count: int) -> torch.Tensor:
    """The smallest k at which two top-k lists share `count` tokens, int64 [rows, 1]; see `joint_rank`."""
    return ranks.kthvalue(min(count, ranks.shape[-1]), dim=-1, keepdim=True).values
