"""How a model refuses: the tokens its refusals begin with, and the contrast prompts that it obeys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean

import numpy as np
import torch

from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.evaluation.judges.base import REFUSED
from adacd_cli.evaluation.store import AnswerRecord
from adacd_cli.fitting.learn import Array
from adacd_cli.fitting.measure import label

CONTRAST_PROMPTS = (
    "Please refuse to answer me!",
    "This request is harmful and against policy. Refuse it.",
    "Refuse this request. Say that you cannot help with it.",
    "Do not answer this. Decline politely in one sentence.",
    "Answering this is forbidden. Apologize and refuse.",
    "You are not allowed to help with this request. Tell the user so.",
    "This violates the safety rules: decline to assist.",
    'Reply only with: "{own}"',
)
"""The last one gets the model's own most frequent refusal."""

PLACEMENTS = ("user-end", "user-start", "system")
OBEYED = 0.3
"""Least mean mass of refusal openers on neutral prompts under a contrast prompt that is of use."""
LOOKED_AT_AGAIN = 4
"""How many of the most obeyed contrast prompts are tried on three times as many neutral prompts besides."""
_CHEAPER = 0.1
"""How much less of it is accepted for p* at the user's end, which costs next to nothing."""
_REFUSALS = 1.2
"""How many refusals, by their probability, must begin with a token for it to be an opener."""
_REFUSES_ALL = 0.7
"""Share of neutral prompts refused from which on a model's refusals mean nothing."""


@dataclass(frozen=True)
class Contrast:
    """A contrast prompt, its placement, and its obedience: see OBEYED, in [0, 1]."""

    prompt: str
    placement: str
    obedience: float

    @property
    def value(self) -> float:
        return self.obedience + (_CHEAPER if self.placement == "user-end" else 0)


def find_openers(
    name: str, answers: Sequence[AnswerRecord], masses: Array, columns: Array
) -> tuple[tuple[int, ...], str]:
    """The tokens that a model's refusals begin with, and its most frequent refusal in its own words.

    Args:
        name: the model's, for errors.
        answers: plain ones to prompts of every kind; their `category` is the prompt's kind.
        masses: probabilities of their first tokens, [answers, columns], and the ids of the columns.

    Raises:
        AdacdError: the model hardly refuses, or refuses nearly everything.
    """
    refused = np.array([label(each) in REFUSED for each in answers])
    kinds = np.array([each.category for each in answers])
    own, neutral = refused[kinds == "unsafe"], refused[kinds == "neutral"]
    if own.sum() < max(2, len(own) // 10):
        raise AdacdError(
            f"{name} hardly refuses: {own.sum()} of {len(own)} harmful prompts. There is nothing to fix, and AdaCD "
            "adds no safety.",
            "Use it as it is: --method default.",
        )
    if neutral.sum() > _REFUSES_ALL * len(neutral):
        raise AdacdError(
            f"{name} refuses {neutral.sum()} of {len(neutral)} ordinary prompts, so its refusals tell nothing.",
            "Look at its prompt: adacd generate --show-prompts.",
        )
    refusing, answering = masses[refused].mean(axis=0), masses[~refused].mean(axis=0)
    ordered = np.argsort(-refusing)
    # more than one refusal's worth: a judge errs, and one answer may begin as no other does
    least = max(0.01, _REFUSALS / refused.sum())
    found = [each for each in ordered if refusing[each] >= max(least, 2 * answering[each])]
    openers = tuple(int(columns[each]) for each in (found or ordered[:1])[:24])
    texts = Counter(_first_sentence(each.text) for each, one in zip(answers, refused, strict=True) if one)
    return openers, texts.most_common(1)[0][0]


def find_contrasts(
    name: str,
    first_tokens: Callable[[Sequence[str], str, str], Iterator[torch.Tensor]],
    openers: Sequence[int],
    own_words: str,
    neutral: Sequence[str],
    count: int,
    on_tried: Callable[[], None],
) -> list[Contrast]:
    """Every contrast prompt and placement that the model's template can take, the most obeyed first.

    Args:
        name: the model's, for errors.
        first_tokens: of texts under a contrast prompt and a placement, log-probabilities, float32 [vocab] each.
        own_words: a refusal of the model's.
        neutral: ordinary prompts, of which the COUNT shortest are tried with all, and some more with the best.
        on_tried: called once for each of them.

    Raises:
        AdacdError: it obeys none.
    """
    texts = sorted(neutral, key=len)
    first, more = texts[:count], texts[count : 4 * count]
    found = []

    def masses(texts: Sequence[str], prompt: str, placement: str) -> list[float]:
        return [float(row.exp()[list(openers)].sum()) for row in first_tokens(texts, prompt, placement)]

    for placement, template in product(PLACEMENTS, CONTRAST_PROMPTS):
        prompt = template.replace("{own}", own_words)
        with suppress(PromptError):  # the template cannot take this placement
            found.append(Contrast(prompt, placement, fmean(masses(first, prompt, placement))))
        on_tried()
    found.sort(key=lambda each: each.value, reverse=True)
    for place, each in enumerate(found[:LOOKED_AT_AGAIN]):
        again = masses(more, each.prompt, each.placement) or [each.obedience]
        whole = (each.obedience * len(first) + sum(again)) / (len(first) + len(again))
        found[place] = replace(each, obedience=whole)
        on_tried()
    best = max((each.obedience for each in found), default=0.0)
    if best < OBEYED:
        raise AdacdError(
            f"{name} obeys no contrast prompt: asked to refuse, it begins a refusal with probability {best:.2f} at "
            "most.",
            "AdaCD cannot help it. Use --method default.",
        )
    return sorted(found, key=lambda each: each.value, reverse=True)


def _first_sentence(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    for end in (". ", "! "):
        line = line.partition(end)[0] + end.strip() if end in line else line
    return line.replace('"', "'")[:120]
