"""Logits of which only the most probable are known: rows for the rules, and when a step's token is certain.

Log-probabilities differ from logits by a constant, so a rule chooses the same token by either. A list has the most
probable tokens; the probability that is left is shared equally among the others, which makes a row whose softmax
gives the known tokens the probabilities that they have. Needed where `Capabilities.full_logits` is False, and only
there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from adacd_cli.config.methods import Method
from adacd_cli.config.settings import Settings
from adacd_cli.engine.backend import Logits, Need, SampledToken
from adacd_cli.engine.step import Report, StepOutcome, is_processed
from adacd_cli.events import Candidate, Decision, Measures

# How many tokens of the base stream and of any other are requested at first. SmolLM2-135M at β = 0.01 needs more in
# 2 and 14 of 100 steps; another request costs a forward, a longer list hardly anything.
FIRST_COUNTS = (128, 256)
GROWTH = 8  # how many times as long each further list is
_SLACK = 1e-4  # by how much a probability may be rounded: in nats for one token, and of the whole for a sum
_LEAST_SHARE = 1e-30


def logits_of(
    ids: Sequence[int],
    logprobs: Sequence[float],
    vocab: int,
    others: Mapping[int, float] | None = None,
    *,
    exhausted: bool = False,
) -> Logits:
    """The logits of one position from what is known of it, float32 [1, 1, vocab], finite: the most probable tokens,
    the most probable one first, at least one, with their log-probabilities in nats, and those of `others` by id.
    Ids beyond the vocabulary, of a model's padding, only take their share of the probability."""
    others = others or {}
    known = torch.tensor([*ids, *others])
    values = torch.tensor([*logprobs, *others.values()], dtype=torch.float64)
    share = max(1.0 - float(values.exp().sum()), _LEAST_SHARE) / max(vocab - len(known), 1)
    batch = torch.full((1, 1, vocab), min(math.log(share), logprobs[-1]), dtype=torch.float32)
    batch[0, 0, known[known < vocab]] = values[known < vocab].float()
    listed = tuple(token for token in ids if token < vocab)
    if len(listed) == vocab:
        return Logits(batch, 0)
    told = (*listed, *(each for each in others if each < vocab))
    return Logits(batch, 0, told, len(listed), exhausted)


def bound_of_rest(known: Sequence[float], last: float) -> float:
    """The most that the log-probability of a token can be that is not among the known ones, whose are given, in
    nats; `last` is the lowest of the list of the most probable ones."""
    return min(last, math.log(_rest(known)))


def _rest(known: Sequence[float]) -> float:
    """The most that all other tokens together can be."""
    return max(0.0, 1.0 - math.fsum(map(math.exp, known))) + _SLACK


def first_needs(method: Method, settings: Settings, names: Sequence[str], report: Report) -> dict[str, Need]:
    """What to ask of each stream's next position before anything of it is known, for those that choose the token,
    the base stream first."""
    reported = max(1, report.candidates, report.top_logprobs or 0)
    base, *others = names
    if not others:
        first = 1 if settings.temperature == 0 else FIRST_COUNTS[0]
        floor = -math.inf if is_processed(settings) else None  # what is unlikely may be raised
        return {base: Need(top=max(first, reported), floor=floor)}
    if settings.plausibility == 0:  # every token counts, in both streams
        return {name: Need(top=reported, floor=-math.inf) for name in names}
    floor = None if method.follows_track else math.log(settings.plausibility) - _SLACK
    needs = {base: Need(top=max(FIRST_COUNTS[0], reported), floor=floor)}
    return needs | {name: Need(top=max(FIRST_COUNTS[1], reported)) for name in others}


def only_told(outcome: StepOutcome, streams: Mapping[str, Logits]) -> StepOutcome:
    """The outcome of a step over these streams without the tokens whose values are not known but shared out."""
    told = [logits.told for logits in streams.values()]
    listed, top = outcome.candidates, outcome.top_logprobs
    if None not in told:  # elsewhere one stream has every token's value
        listed = tuple(each for each in listed if any(each.token_id in own for own in told if own))
    if told[0] is not None:
        top = tuple(each for each in top if each[0] in told[0])
    return replace(outcome, candidates=listed, top_logprobs=top)


def outcome_of(sampled: SampledToken, report: Report, vocab: int) -> StepOutcome:
    """A token that a backend chose by itself, as the outcome of a plain step; ids of a model's padding, beyond
    the vocabulary, are left out."""
    top, own = [pair for pair in sampled.top if pair[0] < vocab], sampled.logprob
    highest = max(own, sampled.top[0][1])
    offered = top[: report.candidates]
    if report.candidates and sampled.token_id not in [token for token, _ in offered]:
        offered = [*offered[: report.candidates - 1], (sampled.token_id, own)]
    return StepOutcome(
        finite=True,
        token_id=sampled.token_id,
        plain_token_id=sampled.token_id,
        decision=Decision.PLAIN,
        measures=Measures(confidence=min(1.0, math.exp(highest))),
        candidates=tuple(Candidate(token, "", None, value, value, True) for token, value in offered),
        logprob=None if report.top_logprobs is None else own,
        top_logprobs=tuple(top[: report.top_logprobs or 0]),
    )


class _Known:
    """What is known of a stream's next position: values by token, and the bound of all others."""

    def __init__(self, logits: Logits) -> None:
        row = logits.at()[0]
        self.vocab, self.whole = len(row), logits.told is None
        self.ids = torch.arange(self.vocab) if logits.told is None else torch.tensor(logits.told)
        self.logprobs = row.log_softmax(-1)[self.ids] if self.whole else row[self.ids]
        best = int(self.logprobs.argmax())
        self.best, self.highest = int(self.ids[best]), float(self.logprobs[best])
        self.listed = self.vocab if self.whole else logits.listed
        self.bound, self.rest = -math.inf, 0.0
        if not self.whole:
            values = self.logprobs.tolist()
            self.bound = bound_of_rest(values, values[self.listed - 1])
            self.rest = _rest(values)


def needs(
    method: Method,
    settings: Settings,
    streams: Mapping[str, Logits],
    noise: torch.Tensor | None,
    decision: Decision | None = None,
    openers: tuple[int, ...] = (),
) -> dict[str, Need]:
    """What would have to be told besides, by stream, for the step's token to be that of the whole distributions;
    nothing exactly where it is. The method is plain where only the base stream is there, else AdaCD or its gated
    form; `streams` is what is known of each stream's next position, the base stream first; `noise`, float32 [1,
    vocab], what the token is drawn with, None where it is the best one; `decision` what a switch decided at the
    first token, None where the agreement of each step decides; `openers` the tokens that it takes out there."""
    if settings.temperature == 0:
        noise = None
    base_name, *others = streams
    base, *known = map(_Known, streams.values())
    longer = {base_name: Need(top=min(max(GROWTH * base.listed, FIRST_COUNTS[0]), base.vocab))}
    gated = method.follows_track if decision is None else decision is Decision.SUBTRACT and not openers
    if not known or (gated and known[0].best != base.best):  # a plain step
        return {} if _plain_is_certain(base, settings, noise) else longer
    (other_name,), (other,) = others, known  # AdaCD and its gated form have two

    lacking: dict[str, Need] = {}
    floor = math.log(settings.plausibility) - _SLACK if settings.plausibility > 0 else -math.inf
    least = base.highest + floor
    if not base.whole and base.bound >= least:
        lacking[base_name] = replace(longer[base_name], floor=floor)
    add = _adds(base, other, settings) if decision is None else decision is Decision.ADD
    if add is None:
        lacking.setdefault(base_name, longer[base_name])
    missing = base.ids[base.logprobs >= least]  # plausible, and not known in the other stream
    missing = missing[:0] if other.whole else missing[~torch.isin(missing, other.ids)]
    # without the openers the best is another, which is not looked for here
    if len(missing) and (openers or _could_win(missing, base, other, least, settings, noise, add)):
        lacking[other_name] = Need(top=other.listed, ids=tuple(missing.tolist()))
    return lacking


def _adds(base: _Known, other: _Known, settings: Settings) -> bool | None:
    """Whether agr ≥ λ and c ≥ λ·c*, with agr = 1 / rank; None where only a bound of the rank is known."""
    threshold = settings.agreement_threshold
    if math.exp(base.highest) < threshold * math.exp(other.highest):
        return False
    listed = base.ids[: base.listed]
    found = (listed == other.best).nonzero()
    if len(found):
        above = int((base.logprobs > base.logprobs[found[0, 0]]).sum())
        return 1 / (1 + above) >= threshold
    if threshold <= 0:
        return True
    return None if 1 / (base.listed + 1) >= threshold else False


def _could_win(
    missing: torch.Tensor,
    base: _Known,
    other: _Known,
    least: float,
    settings: Settings,
    noise: torch.Tensor | None,
    add: bool | None,
) -> bool:
    """Whether a token with a value that is only bounded could be chosen, or change which one is. The score z* ±
    α·(z* − z) rises with z*, of which an upper bound is known, where 1 ± α is positive; where it is negative it
    could be anything, and where it is 0 nothing depends on z*."""
    sign = 1.0 if add else -1.0
    slope = 1 + sign * settings.alpha
    if add is None or slope < 0 or is_processed(settings):
        return True
    if slope == 0:
        return False
    if noise is not None and (settings.top_p < 1 or settings.min_p > 0 or 0 < settings.top_k < base.vocab):
        return True  # how many tokens they keep may depend on it
    plain = torch.full((base.vocab,), -torch.inf).scatter(0, base.ids, base.logprobs)
    prompted = torch.full((base.vocab,), other.bound).scatter(0, other.ids, other.logprobs)
    scores = slope * prompted - sign * settings.alpha * plain
    scores = scores.masked_fill(plain < least, -torch.inf)
    if noise is not None:
        scores = scores / settings.temperature - noise[0].log()
    bounded = scores[missing].max()
    scores[missing] = -torch.inf
    return bool(bounded >= scores.max() - _SLACK)


def _plain_is_certain(known: _Known, settings: Settings, noise: torch.Tensor | None) -> bool:
    """Whether a plain choice is the same whatever the tokens that are not known share among themselves. They weigh
    least or most in the softmax, after the temperature, where all have the same probability or as few as possible
    have all; top-p keeps more tokens the more they weigh."""
    if known.whole or is_processed(settings):
        return known.whole
    if noise is None:
        return True
    temperature, count = settings.temperature, known.listed
    order = known.logprobs[:count]  # the most probable first; values that are known besides are not needed
    scaled = (order - known.highest) / temperature
    if 0 < settings.top_k <= count:
        scaled = scaled[: settings.top_k]
        weights = (0.0, 0.0)
    else:
        others = known.vocab - count
        rest, bound = max(known.rest, _LEAST_SHARE), math.exp(known.bound)
        equal = others * (rest / others) ** (1 / temperature)
        fewest = rest * bound ** (1 / temperature - 1)
        scale = math.exp(-known.highest / temperature)
        weights = (scale * min(equal, fewest), scale * max(equal, fewest))
    tops = []
    least = math.log(settings.min_p) if settings.min_p > 0 else -math.inf
    before = scaled.exp().cumsum(0) - scaled.exp()
    drawn = scaled - noise[0, known.ids[: len(scaled)]].log()
    for weight in weights:
        whole = float(scaled.exp().sum()) + weight
        kept = before / whole < settings.top_p if settings.top_p < 1 else torch.ones_like(scaled).bool()
        kept &= scaled >= least
        kept[0] = True
        tops.append(int(drawn.masked_fill(~kept, -torch.inf).argmax()))
        out = weight == 0 or (known.bound - known.highest) / temperature < least
        out |= settings.top_p < 1 and float(scaled.exp().sum()) / whole >= settings.top_p
    if tops[0] != tops[1]:
        return False
    if out:  # top-k or top-p leaves out everything that is not known
        return True
    rivals = (known.bound - known.highest) / temperature - noise[0].log()
    return bool(drawn[tops[0]] > rivals.scatter(-1, known.ids, -torch.inf).max())
