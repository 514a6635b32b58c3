"""One step on the device: logits of both streams in, tokens and their numbers out, one copy to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adacd_cli.engine.rules.base import DECISIONS, PLAIN, RowMeasures, Rule, StepLogits
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import choose
from adacd_cli.events import Decision, Measures

if TYPE_CHECKING:
    from adacd_cli.config import Settings

TOKEN = 1
"""The column of a packed step that holds the chosen tokens' ids."""


@dataclass(frozen=True)
class RowCandidate:
    """A Candidate before its text is known; the fields are `events.Candidate`'s."""

    token_id: int
    unprompted_logprob: float
    prompted_logprob: float | None
    score: float | None
    kept: bool


@dataclass(frozen=True)
class RowOutcome:
    """What a step gave one row, on the host.

    Attributes:
        finite: False when a logit of the row was NaN or infinite; the rest is then meaningless.
    """

    finite: bool
    token_id: int
    plain_token_id: int
    decision: Decision
    measures: Measures
    candidates: tuple[RowCandidate, ...] = ()


@torch.inference_mode()
def pack_step(
    rule: Rule,
    unprompted: torch.Tensor,
    prompted: torch.Tensor | None,
    contrasted: Sequence[int],
    settings: Settings,
    noise: torch.Tensor | None,
    candidates: int = 0,
) -> torch.Tensor:
    """Chooses a token for every row: by the rule where a row is contrasted, plainly elsewhere.

    Args:
        rule: asked for the contrasted rows.
        unprompted: z, float32 [rows, vocab].
        prompted: z*, float32 [len(contrasted), vocab]; None when no row is contrasted.
        contrasted: the rows, ascending, that `prompted` belongs to.
        settings: passed to the rule and to `choose`.
        noise: float32 [rows, vocab] when sampling.
        candidates: how many of the most probable tokens of either stream to report.

    Returns:
        float32 [rows, 10 + 4·candidates] on the device, for `unpack`; TOKEN is the column of the chosen ids.
    """
    rows = unprompted.shape[0]
    everyone = prompted is not None and len(contrasted) == rows
    if not everyone:
        verdict = default(StepLogits(None, unprompted), settings)
        scores, decision, confidence = verdict.scores, verdict.decision, verdict.confidence
    finite = _finite(unprompted)
    numbers = unprompted.new_full((rows, 5), torch.nan)
    whole_prompted: torch.Tensor | None = None

    if prompted is not None:
        index = torch.tensor(contrasted, device=unprompted.device)
        own = unprompted if everyone else unprompted[index]
        verdict = rule(StepLogits(prompted, own), settings)
        agreed_finite = _finite(prompted)
        columns = [] if verdict.measures is None else _columns(verdict.measures)
        if everyone:
            scores, decision, confidence = verdict.scores, verdict.decision, verdict.confidence
            finite = finite & agreed_finite
            whole_prompted = prompted
        else:
            scores = unprompted.index_copy(0, index, verdict.scores)
            decision = decision.index_copy(0, index, verdict.decision)
            confidence = confidence.index_copy(0, index, verdict.confidence)
            finite = finite.index_copy(0, index, finite[index] & agreed_finite)
            whole_prompted = torch.full_like(unprompted, torch.nan).index_copy(0, index, prompted)
        if columns:
            numbers[index] = torch.stack(columns, dim=-1)

    token = choose(scores, settings, noise)
    plain = choose(unprompted, settings, noise)
    # float32 holds every id below 2^24 exactly, so ids travel with the measures in one copy
    packed = [
        torch.stack([finite.float(), token.float(), plain.float(), decision.float(), confidence], dim=-1),
        numbers,
    ]
    if candidates > 0:
        packed.append(_candidate_columns(candidates, token, plain, unprompted, whole_prompted, scores))
    return torch.cat(packed, dim=-1)


def unpack(packed: torch.Tensor) -> list[RowOutcome]:
    """What `pack_step` gave, on the host: the one place where a step waits for the device."""
    return [_unpack(row) for row in packed.tolist()]


def _finite(logits: torch.Tensor) -> torch.Tensor:
    """Whether all of a row are, bool [rows]; its two ends tell, in a tenth of the time of asking each."""
    return logits.amax(dim=-1).isfinite() & logits.amin(dim=-1).isfinite()


def _columns(measures: RowMeasures) -> list[torch.Tensor]:
    columns = (
        measures.agreement,
        measures.prompted_top_id,
        measures.prompted_top_rank,
        measures.prompted_confidence,
        measures.plausible_count,
    )
    missing = torch.full_like(measures.prompted_confidence, torch.nan)
    return [missing if column is None else column.float() for column in columns]


def _candidate_columns(
    count: int,
    token: torch.Tensor,
    plain: torch.Tensor,
    unprompted: torch.Tensor,
    prompted: torch.Tensor | None,
    scores: torch.Tensor,
) -> torch.Tensor:
    """[rows, 4·count]: id, both log-probabilities and score of each candidate, the best score first.

    They are the most probable tokens of either stream, so that what the mask dropped is seen too; the chosen
    token is always among them, and the plain one where there is room.
    """
    plain_logprobs = unprompted.log_softmax(dim=-1)
    prompted_logprobs = (
        torch.full_like(plain_logprobs, torch.nan) if prompted is None else prompted.log_softmax(dim=-1)
    )
    interest = torch.fmax(plain_logprobs, prompted_logprobs)
    interest = interest.scatter(-1, plain.unsqueeze(-1), torch.inf)
    if count == 1:
        interest = unprompted.new_full(unprompted.shape, -torch.inf)
    interest = interest.scatter(-1, token.unsqueeze(-1), torch.inf)
    ids = interest.topk(min(count, unprompted.shape[-1]), dim=-1).indices
    order = scores.gather(-1, ids).argsort(dim=-1, descending=True, stable=True)
    ids = ids.gather(-1, order)
    parts = [ids.float(), *(part.gather(-1, ids) for part in (plain_logprobs, prompted_logprobs, scores))]
    return torch.stack(parts, dim=-1).flatten(start_dim=-2)


def _unpack(row: list[float]) -> RowOutcome:
    finite, token, plain, decision, confidence = row[:5]
    agreement, top, rank, prompted_confidence, plausible = row[5:10]
    if not finite:
        return RowOutcome(False, 0, 0, DECISIONS[PLAIN], Measures(confidence=0.0))
    measures = Measures(confidence=confidence)
    if rank == rank:  # not NaN: the row has a second stream
        measures = Measures(
            confidence=confidence,
            agreement=_number(agreement),
            prompted_top_id=int(top),
            prompted_top_rank=int(rank),
            prompted_confidence=prompted_confidence,
            plausible_count=None if plausible != plausible else int(plausible),
        )
    found = [
        RowCandidate(
            token_id=int(row[place]),
            unprompted_logprob=row[place + 1],
            prompted_logprob=_number(row[place + 2]),
            score=None if row[place + 3] == -torch.inf else row[place + 3],
            kept=row[place + 3] != -torch.inf,
        )
        for place in range(10, len(row), 4)
    ]
    return RowOutcome(True, int(token), int(plain), DECISIONS[int(decision)], measures, tuple(found))


def _number(value: float) -> float | None:
    """None for NaN, which stands for a number that there is not."""
    return None if value != value else value
