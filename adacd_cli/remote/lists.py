"""From lists of the most probable tokens to rows that the rules run on, and when that is exact.

Log-probabilities differ from logits by a constant, so a rule chooses the same token by either. A list has the
most probable tokens; the probability that is left is shared equally among the others, which makes a row whose
softmax gives the listed tokens the probabilities that they have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adacd_cli.engine.sampling import choose
from adacd_cli.remote.dialects.base import OWN_TOKENIZER, TopList, Unbelievable

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_SLACK = 1e-4
"""Nats by which a token may miss the plausibility mask and still count as plausible: the rule's own softmax
is rounded to float32."""

_LEAST_SHARE = 1e-30

_LEAST_WHOLE = 0.98
"""What all probabilities add up to at least, as a server rounds them."""


def check_id(token: int, vocab: int) -> int:
    """The token's id.

    Raises:
        Unbelievable: no token of the vocabulary has it.
    """
    if token >= vocab:
        raise Unbelievable(
            f"it gave the id {token}, beyond the tokenizer's {vocab:,} tokens: it has another tokenizer",
            OWN_TOKENIZER,
        )
    return token


def check_ids(listed: TopList, vocab: int, plausibility: float) -> None:
    """Lets ids beyond the vocabulary pass where they are as improbable as those of a model's padding.

    Raises:
        Unbelievable: one of them is plausible.
    """
    floor = _floor(listed, plausibility)
    for token, value in zip(listed.ids, listed.logprobs, strict=True):
        if plausibility > 0 and value >= floor:
            check_id(token, vocab)
    check_id(listed.ids[0], vocab)


def check_rest(listed: TopList, vocab: int) -> None:
    """Checks that what is not listed, each at most as probable as the least listed one, makes up the rest.

    Raises:
        Unbelievable: it cannot, so these are not the most probable tokens, or no probabilities.
    """
    most = sum(map(math.exp, listed.logprobs))
    most += max(0, vocab - len(listed.ids)) * math.exp(listed.logprobs[-1])
    if most < _LEAST_WHOLE:
        raise Unbelievable(f"the probabilities that it gives leave room for {most:.3g} of all at most")


def _floor(listed: TopList, plausibility: float) -> float:
    """What a plausible token has at least."""
    return listed.logprobs[0] + math.log(plausibility) - _SLACK if plausibility > 0 else -math.inf


def dense(listed: TopList, vocab: int, others: Mapping[int, float] | None = None) -> torch.Tensor:
    """Log-probabilities of every token, float32 [1, vocab], finite.

    Args:
        listed: at least one token.
        vocab: tokens in the vocabulary; higher ids, of a model's padding, are left out.
        others: log-probabilities that are known besides, by id.
    """
    others = others or {}
    ids = torch.tensor([*listed.ids, *others])
    known = torch.tensor([*listed.logprobs, *others.values()], dtype=torch.float64)
    share = max(1.0 - float(known.exp().sum()), _LEAST_SHARE) / max(vocab - len(ids), 1)
    row = torch.full((1, vocab), min(math.log(share), listed.logprobs[-1]), dtype=torch.float32)
    row[0, ids[ids < vocab]] = known[ids < vocab].float()
    return row


@dataclass(frozen=True)
class Lacking:
    """What a step's token depends on and is not known.

    Attributes:
        unprompted: whether the unprompted list is too short.
        tokens: plausible tokens without a value in the prompted stream.
    """

    unprompted: bool = False
    tokens: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.unprompted or bool(self.tokens)


def lacking(
    unprompted: TopList,
    prompted: TopList,
    settings: Settings,
    vocab: int,
    *,
    gated: bool,
    noise: torch.Tensor | None,
    others: Mapping[int, float] | None = None,
) -> Lacking:
    """What a step of AdaCD lacks for its token to be that of the whole distributions.

    Every plausible token (P ≥ β·max P) must have its value in both lists, which takes an unprompted list that
    goes on below β·max P; and where y* is not in it, its rank, of which a bound is known, must not decide.

    Args:
        unprompted, prompted: the lists, each with at least one token.
        settings: β, λ and those of sampling.
        vocab: tokens in the vocabulary.
        gated: whether the step is plain where the two most probable tokens differ.
        noise: what the token is drawn with, [1, vocab]; None where it is the best one.
        others: log-probabilities of the prompted stream that are known besides, by id.
    """
    highest, whole = unprompted.logprobs[0], _is_whole(unprompted, vocab)
    top = prompted.ids[0]
    if gated and top != unprompted.ids[0]:  # plain
        return Lacking(not is_certain(unprompted, settings, vocab, noise))
    floor = _floor(unprompted, settings.plausibility)
    more = not whole and unprompted.logprobs[-1] >= floor
    if not (whole or gated or top in unprompted.ids):
        # ADD takes agr ≥ λ and c ≥ λ·c*, and agr = 1 / rank is below 1 / listed
        threshold = settings.agreement_threshold
        sure = math.exp(highest) >= threshold * math.exp(prompted.logprobs[0])
        more |= threshold > 0 and sure and 1 / (len(unprompted.ids) + 1) >= threshold
    known = {*prompted.ids, *(others or {})}
    plausible = (
        token for token, value in zip(unprompted.ids, unprompted.logprobs, strict=True) if value >= floor
    )
    return Lacking(more, tuple(token for token in plausible if token not in known))


def is_certain(listed: TopList, settings: Settings, vocab: int, noise: torch.Tensor | None) -> bool:
    """Whether a plain choice takes what it would take of the whole distribution.

    A token that is not listed has at most the least listed one's probability; it must lose even so.
    """
    if noise is None or _is_whole(listed, vocab):
        return True
    row = dense(listed, vocab)
    token = int(choose(row, settings, noise))
    if token not in listed.ids:
        return False
    others = torch.full_like(row, listed.logprobs[-1])
    others[0, [each for each in listed.ids if each < vocab]] = -torch.inf
    won = row[0, token] / settings.temperature - noise[0, token].log()
    return bool(won > (others / settings.temperature - noise.log()).max())


def _is_whole(listed: TopList, vocab: int) -> bool:
    return len(listed.ids) >= vocab and max(listed.ids) < vocab
