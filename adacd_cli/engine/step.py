"""One step on the device: logits of the streams in, tokens and their numbers out, one copy to the host.

Every row draws its own noise from its own generator, so a request's tokens do not depend on its batch, and the
plain token of a step is judged by the same draw as the chosen one. First `ScoreProcessor` changes the final scores,
in the order of `settings.PROCESSING`, which is transformers' own: biases, penalties, ends that may not come yet, a
grammar. Temperature, top-k, top-p and min-p come afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from math import isnan

import torch
from torch.nn.functional import pad

from adacd_cli.config.settings import PROCESSING, Settings
from adacd_cli.engine.rules.base import Rule, StepLogits
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.switches import DECISIONS, PLAIN
from adacd_cli.events import Candidate, Decision, Measures

# the columns of a packed step that every row has: finite, token, plain token, decision, confidence
_FIXED = 5
# final scores of one request, float32 [1, vocab], in; the changed ones, a copy, out
Process = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Report:
    """What a step tells of other tokens than the chosen one; see `Request`."""

    candidates: int = 0
    top_logprobs: int | None = None


NOTHING_ELSE = Report()


@dataclass(frozen=True)
class StepOutcome:
    """What a step gave one row, on the host; see `events.TokenStep`."""

    finite: bool  # False where a logit was NaN or infinite; the rest is then meaningless
    token_id: int
    plain_token_id: int
    decision: Decision
    measures: Measures
    candidates: tuple[Candidate, ...] = ()  # their texts are not known yet
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()  # ids and log-probabilities
    exact: bool = True


@dataclass(frozen=True)
class PackedStep:
    """The outcomes of rows that choose alike, still on the device."""

    columns: torch.Tensor  # float32 [rows, columns]
    measures: tuple[str, ...]  # their names, in the order of their columns
    report: Report

    @property
    def tokens(self) -> torch.Tensor:
        """The chosen tokens, int64 [rows]."""
        return self.columns[:, 1].long()


def is_processed(settings: Settings) -> bool:
    """Whether any of the settings changes final scores."""
    return not settings.controls.keys().isdisjoint(PROCESSING)


class ScoreProcessor:
    """Changes the scores of one request. Ids beyond the vocabulary, which may be a smaller draft's, have no effect.

    Args:
        prompt: the ids of the base stream's prompt, which the repetition penalty counts as well.
        ends: the ids that end the answer, which have no score before `min_tokens`.
        device: where the scores are.
    """

    def __init__(
        self, settings: Settings, prompt: Sequence[int], ends: Collection[int], device: torch.device
    ) -> None:
        self._settings, self._device = settings, device
        self._prompt, self._ends = tuple(prompt), tuple(ends)
        self._vocab = self._taken = 0

    def __call__(
        self, scores: torch.Tensor, answer: Sequence[int], allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The changed scores, a copy. `answer` is what was answered so far, which only grows; tokens that are not
        `allowed`, bool [tokens], have no score."""
        settings = self._settings
        if scores.shape[-1] != self._vocab:
            self._begin(scores.shape[-1])
        new, self._taken = self._ids(answer[self._taken :]), len(answer)
        self._seen[new] = True
        self._counts.index_add_(0, new, torch.ones(len(new), device=self._device))
        scores = scores + self._bias
        if (penalty := settings.repetition_penalty) != 1:
            penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
            scores = torch.where(self._seen, penalized, scores)
        if settings.frequency_penalty or settings.presence_penalty:
            scores -= self._counts * settings.frequency_penalty
            scores -= (self._counts > 0) * settings.presence_penalty
        if len(answer) < settings.min_tokens:
            scores[:, self._ending] = -torch.inf
        if allowed is not None:  # nor what a model's padding has beyond the tokenizer's tokens
            known = pad(allowed, (0, self._vocab - len(allowed))).to(self._device)
            scores = scores.masked_fill(~known, -torch.inf)
        return scores

    def _begin(self, vocab: int) -> None:
        self._vocab, self._taken = vocab, 0
        self._bias = torch.zeros(vocab, device=self._device)
        self._counts, self._seen = torch.zeros_like(self._bias), self._bias.bool()
        for token, bias in self._settings.biases.items():
            self._bias[self._ids([token])] = bias
        self._seen[self._ids(self._prompt)] = True
        self._ending = self._ids(self._ends)

    def _ids(self, tokens: Sequence[int]) -> torch.Tensor:
        """Those that are in the vocabulary, int64 [tokens]."""
        return torch.tensor([each for each in tokens if each < self._vocab], device=self._device).long()


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed)


def draw_noise(generators: Sequence[torch.Generator], vocab: int, device: torch.device) -> torch.Tensor:
    """Exponential(1) noise, float32 [rows, vocab]: argmax(p / noise) is a draw from p."""
    noise = torch.empty((len(generators), vocab), dtype=torch.float32, device=device)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return noise


def choose(scores: torch.Tensor, settings: Settings, noise: torch.Tensor | None) -> torch.Tensor:
    """The chosen token of each row, int64 [rows]: greedily, or with temperature, top-k, top-p and min-p by the
    noise that `draw_noise` gave for these rows. Scores are float32 [rows, vocab]; -inf tokens are never chosen."""
    if settings.temperature == 0 or noise is None:
        return scores.argmax(dim=-1)
    # the maximum is taken off first, and no temperature is 0 in float32: a tiny one is greedy, not 0/0
    temperature = max(settings.temperature, torch.finfo(torch.float32).tiny)
    scaled = (scores - scores.amax(dim=-1, keepdim=True)) / temperature
    if 0 < settings.top_k < scaled.shape[-1]:
        floor = scaled.topk(settings.top_k, dim=-1).values[..., -1:]
        scaled = scaled.masked_fill(scaled < floor, -torch.inf)
    if settings.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        # a token goes when those before it already reach top_p; the first stays, however small top_p is
        beyond = probabilities.cumsum(dim=-1) - probabilities >= settings.top_p
        beyond[..., 0] = False
        scaled = scaled.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    probabilities = scaled.softmax(dim=-1)
    if settings.min_p > 0:
        least = settings.min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    return (probabilities / noise).argmax(dim=-1)


@torch.inference_mode()
def pack_step(
    rule: Rule,
    logits: StepLogits,
    settings: Settings,
    noise: torch.Tensor | None,
    report: Report = NOTHING_ELSE,
    process: Process | None = None,
) -> PackedStep:
    """Chooses a token for every row, by the same rule and numbers, from the logits of each stream that is in its
    window, the base stream first, and the noise when sampling, float32 [rows, vocab]. The rule is asked where there
    is more than the base stream; with that alone the token is chosen plainly. `process` changes the final scores;
    where it leaves none of them, it is the base stream's that count."""
    base, *others = logits.values()
    verdict = (rule if others else default)(logits, settings)
    scores, plain_scores = verdict.scores, base
    if process is not None:
        plain_scores = process(base)
        processed = plain_scores if scores is base else process(scores)
        none = processed.amax(dim=-1, keepdim=True) == -torch.inf
        scores = processed if scores is base else torch.where(none, plain_scores, processed)
    finite = _finite(base)
    for other in others:
        finite &= _finite(other)
    token = choose(scores, settings, noise)
    plain = token if scores is plain_scores else choose(plain_scores, settings, noise)
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
    columns = [_widened(part.columns, width) for part in parts]
    rows = iter((torch.cat(columns) if len(parts) > 1 else columns[0]).tolist())
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
    missing = width - columns.shape[-1]
    return pad(columns, (0, missing), value=torch.nan) if missing else columns


def _candidate_columns(
    count: int,
    token: torch.Tensor,
    plain: torch.Tensor,
    unprompted: torch.Tensor,
    prompted: torch.Tensor | None,
    scores: torch.Tensor,
) -> torch.Tensor:
    """[rows, 4·count]: id, both log-probabilities and score of each candidate, the best score first. They are the
    most probable tokens of either stream, so that what the mask dropped is seen too; the chosen token is always
    among them, and the plain one where there is room."""
    plain_logprobs = unprompted.log_softmax(dim=-1)
    prompted_logprobs = plain_logprobs * torch.nan if prompted is None else prompted.log_softmax(dim=-1)
    interest = torch.fmax(plain_logprobs, prompted_logprobs)
    if count > 1:
        interest = interest.scatter(-1, plain.unsqueeze(-1), torch.inf)
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
    rest = iter(row[_FIXED:])
    named = zip(part.measures, rest, strict=False)
    numbers = {name: int(value) if name in _WHOLE else value for name, value in named}
    known = {name: numbers.pop(name) for name in _KNOWN & numbers.keys()}
    measures = Measures(confidence, **known, named=numbers)  # type: ignore[arg-type]
    count = part.report.top_logprobs
    logprob = None if count is None else next(rest)
    top = [(next(rest), next(rest)) for _ in range(count or 0)]
    listed = zip(rest, rest, rest, rest, strict=False)  # the others are NaN
    return StepOutcome(
        True,
        int(token),
        int(plain),
        DECISIONS[int(decision)],
        measures,
        tuple(
            Candidate(
                token_id=int(each),
                text="",
                unprompted_logprob=unprompted,
                prompted_logprob=None if isnan(prompted) else prompted,
                score=None if score == -torch.inf else score,
                kept=score != -torch.inf,
            )
            for each, unprompted, prompted, score in listed
            if not isnan(each)
        ),
        logprob=logprob,
        top_logprobs=tuple((int(each), value) for each, value in top if not isnan(each)),
    )
