"""One step on the device: logits of the streams in, tokens and their numbers out, one copy to the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from adacd_cli.engine.rules.base import DECISIONS, PLAIN, Rule, StepLogits
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.sampling import choose
from adacd_cli.events import Decision, Measures

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_FIXED = 5
"""The columns of a packed step that every row has: finite, token, plain token, decision, confidence."""


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


NOTHING_ELSE = Report()


@dataclass(frozen=True)
class StepCandidate:
    """A Candidate before its text is known; the fields are `events.Candidate`'s."""

    token_id: int
    unprompted_logprob: float
    prompted_logprob: float | None
    score: float | None
    kept: bool


@dataclass(frozen=True)
class StepOutcome:
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
    candidates: tuple[StepCandidate, ...] = ()
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    exact: bool = True


@dataclass(frozen=True)
class PackedStep:
    """The outcomes of rows that choose alike, still on the device.

    Attributes:
        columns: float32 [rows, columns].
        measures: the names of the measures, in the order of their columns.
        report: what else is in the columns.
    """

    columns: torch.Tensor
    measures: tuple[str, ...]
    report: Report

    @property
    def tokens(self) -> torch.Tensor:
        """The chosen tokens, int64 [rows]."""
        return self.columns[:, 1].long()


@torch.inference_mode()
def pack_step(
    rule: Rule,
    logits: StepLogits,
    settings: Settings,
    noise: torch.Tensor | None,
    report: Report = NOTHING_ELSE,
) -> PackedStep:
    """Chooses a token for every row, by the same rule and numbers.

    Args:
        rule: asked where there is more than the base stream; with that alone the token is chosen plainly.
        logits: of each stream that is in its window, the base stream first, float32 [rows, vocab].
        settings: passed to the rule and to `choose`.
        noise: float32 [rows, vocab] when sampling.
        report: what to tell of other tokens.

    Returns:
        What `unpack` copies to the host.
    """
    base, *others = logits.values()
    verdict = (rule if others else default)(logits, settings)
    scores = verdict.scores
    finite = _finite(base)
    for other in others:
        finite &= _finite(other)
    token = choose(scores, settings, noise)
    plain = token if scores is base else choose(base, settings, noise)
    # float32 holds every id below 2^24 exactly, so ids travel with the measures in one copy
    fixed = finite, token, plain, verdict.decision, verdict.confidence, *verdict.measures.values()
    packed = [torch.stack([column.float() for column in fixed], dim=-1)]
    if report.top_logprobs is not None:
        packed.append(_logprob_columns(report.top_logprobs, token, base))
    if report.candidates > 0:
        second = others[0] if others else None
        packed.append(_candidate_columns(report.candidates, token, plain, base, second, scores))
    return PackedStep(torch.cat(packed, dim=-1), tuple(verdict.measures), report)


def unpack(parts: Sequence[PackedStep]) -> list[StepOutcome]:
    """The outcomes of all parts, one part after the other: the one place where a step waits for the device."""
    width = max(part.columns.shape[-1] for part in parts)
    joined = (
        torch.cat([_widened(part.columns, width) for part in parts]) if len(parts) > 1 else parts[0].columns
    )
    rows = iter(joined.tolist())
    return [_unpack(next(rows), part) for part in parts for _ in range(len(part.columns))]


def _finite(logits: torch.Tensor) -> torch.Tensor:
    """Whether all of a row are, bool [rows]; its sum tells, in a tenth of the time of asking each."""
    return logits.sum(dim=-1).isfinite()


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


_KNOWN = {each.name for each in fields(Measures)} - {"confidence", "named"}
_WHOLE = {"prompted_top_id", "prompted_top_rank", "plausible_count"}


def _unpack(row: list[float], part: PackedStep) -> StepOutcome:
    finite, token, plain, decision, confidence = row[:_FIXED]
    if not finite:
        return StepOutcome(False, 0, 0, DECISIONS[PLAIN], Measures(confidence=0.0))
    numbers = dict(zip(part.measures, row[_FIXED:], strict=False))
    own = {name: int(value) if name in _WHOLE else value for name, value in numbers.items()}
    measures = Measures(
        confidence,
        **{name: value for name, value in own.items() if name in _KNOWN},  # type: ignore[arg-type]
        named={name: value for name, value in own.items() if name not in _KNOWN},
    )
    report, start = part.report, _FIXED + len(numbers)
    logprobs, rest = row[start : start + report.logprob_columns], row[start + report.logprob_columns :]
    found = [
        StepCandidate(
            token_id=int(rest[place]),
            unprompted_logprob=rest[place + 1],
            prompted_logprob=_number(rest[place + 2]),
            score=None if rest[place + 3] == -torch.inf else rest[place + 3],
            kept=rest[place + 3] != -torch.inf,
        )
        for place in range(0, 4 * report.candidates, 4)
        if rest[place] == rest[place]
    ]
    return StepOutcome(
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
