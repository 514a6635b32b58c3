"""One step on the device: logits of both streams in, tokens and their numbers out, one copy to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from adacd_cli.engine.rules.base import DECISIONS, PLAIN, RowMeasures, Rule, StepLogits
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import choose
from adacd_cli.events import Decision, Measures

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_MEASURES = 5
_FIXED = 5 + _MEASURES
"""The columns of a packed step that every row has."""

TOKEN = 1
"""The column of a packed step that holds the chosen tokens' ids."""


@dataclass(frozen=True)
class Report:
    """What a step tells of other tokens than the chosen one.

    Attributes:
        candidates: how many of the most probable tokens of either stream.
        top_logprobs: how many of the most probable ones of the unprompted stream, besides the chosen one's
            log-probability; None for neither.
    """

    candidates: int = 0
    top_logprobs: int | None = None

    @property
    def logprob_columns(self) -> int:
        """How many columns the log-probabilities take in a packed step."""
        return 0 if self.top_logprobs is None else 1 + 2 * self.top_logprobs

    @property
    def columns(self) -> int:
        """How many columns a row takes in a packed step."""
        return _FIXED + self.logprob_columns + 4 * self.candidates


NOTHING_ELSE = Report()


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
        logprob: the chosen token's in the unprompted stream, nats; None unless asked for.
        top_logprobs: ids and log-probabilities of the unprompted stream's most probable tokens.
        exact: see `events.TokenStep`.
    """

    finite: bool
    token_id: int
    plain_token_id: int
    decision: Decision
    measures: Measures
    candidates: tuple[RowCandidate, ...] = ()
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    exact: bool = True


@torch.inference_mode()
def pack_step(
    rule: Rule,
    unprompted: torch.Tensor,
    prompted: torch.Tensor | None,
    settings: Settings,
    noise: torch.Tensor | None,
    report: Report = NOTHING_ELSE,
) -> torch.Tensor:
    """Chooses a token for every row, by the same rule and numbers.

    Args:
        rule: asked where there is a prompted stream; without one the token is chosen plainly.
        unprompted: z, float32 [rows, vocab].
        prompted: z*, float32 [rows, vocab]; None outside the contrast window.
        settings: passed to the rule and to `choose`.
        noise: float32 [rows, vocab] when sampling.
        report: what to tell of other tokens.

    Returns:
        float32 [rows, report.columns] on the device, for `unpack`; TOKEN is the column of the chosen ids.
    """
    verdict = (default if prompted is None else rule)(StepLogits(prompted, unprompted), settings)
    scores = verdict.scores
    finite = _finite(unprompted) if prompted is None else _finite(unprompted) & _finite(prompted)
    numbers = unprompted.new_full((unprompted.shape[0], _MEASURES), torch.nan)
    if verdict.measures is not None:
        numbers = torch.stack(_columns(verdict.measures), dim=-1)

    token = choose(scores, settings, noise)
    plain = choose(unprompted, settings, noise)
    # float32 holds every id below 2^24 exactly, so ids travel with the measures in one copy
    packed = [
        torch.stack(
            [finite.float(), token.float(), plain.float(), verdict.decision.float(), verdict.confidence],
            dim=-1,
        ),
        numbers,
    ]
    if report.top_logprobs is not None:
        packed.append(_logprob_columns(report.top_logprobs, token, unprompted))
    if report.candidates > 0:
        packed.append(_candidate_columns(report.candidates, token, plain, unprompted, prompted, scores))
    return torch.cat(packed, dim=-1)


def join_packed(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Packed steps with different reports, one below the other; the narrow ones are widened with NaN."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[-1]), value=torch.nan) for part in parts])


def unpack(packed: torch.Tensor, reports: Sequence[Report] | None = None) -> list[RowOutcome]:
    """What `pack_step` gave, on the host: the one place where a step waits for the device.

    Args:
        packed: float32 [rows, columns].
        reports: what each row was asked to tell; None for nothing.
    """
    rows = packed.tolist()
    return [_unpack(*each) for each in zip(rows, reports or [NOTHING_ELSE] * len(rows), strict=True)]


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


def _logprob_columns(count: int, token: torch.Tensor, unprompted: torch.Tensor) -> torch.Tensor:
    """[rows, 1 + 2·count]: the chosen token's log-probability, then ids and log-probabilities of the top."""
    logprobs = unprompted.log_softmax(dim=-1)
    chosen = logprobs.gather(-1, token.unsqueeze(-1))
    if count == 0:
        return chosen
    best = logprobs.topk(min(count, logprobs.shape[-1]), dim=-1)
    listed = torch.stack([best.indices.float(), best.values], dim=-1).flatten(start_dim=-2)
    return _widened(torch.cat([chosen, listed], dim=-1), 1 + 2 * count)


def _widened(columns: torch.Tensor, width: int) -> torch.Tensor:
    """With NaN where the vocabulary has fewer tokens than were asked for."""
    return pad(columns, (0, width - columns.shape[-1]), value=torch.nan)


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
    return _widened(torch.stack(parts, dim=-1).flatten(start_dim=-2), 4 * count)


def _unpack(row: list[float], report: Report) -> RowOutcome:
    finite, token, plain, decision, confidence = row[:5]
    agreement, top, rank, prompted_confidence, plausible = row[5:_FIXED]
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
        for place in range(_FIXED + report.logprob_columns, report.columns, 4)
        if row[place] == row[place]
    ]
    logprobs = row[_FIXED : _FIXED + report.logprob_columns]
    return RowOutcome(
        True,
        int(token),
        int(plain),
        DECISIONS[int(decision)],
        measures,
        tuple(found),
        logprob=logprobs[0] if logprobs else None,
        top_logprobs=tuple(
            (int(logprobs[place]), logprobs[place + 1])
            for place in range(1, len(logprobs), 2)
            if logprobs[place] == logprobs[place]
        ),
    )


def _number(value: float) -> float | None:
    """None for NaN, which stands for a number that there is not."""
    return None if value != value else value
