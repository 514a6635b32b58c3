"""Finds the direction of false refusal in a model's residual stream (Surgical; Wang et al., ICLR 2025). The
candidates are the mean differences between pseudo-harmful and harmless prompts, at each position after the question
and each block, minus the part that harm itself has there. Chosen is the one whose removal makes the model refuse
pseudo-harmful prompts least, without changing what it says to harmless ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.prompts import build_prompts
from adacd_cli.prompts.prompts import shared_length

if TYPE_CHECKING:
    import torch

    from adacd_cli.engine import LanguageModel

# texts a refusal begins with: the first token of each counts as a refusal token
REFUSAL_STARTS = (
    *("I'm sorry", "I am sorry", "I cannot", "I can't", "I apologize", "Sorry", "Unfortunately"),
    *("As an AI", "My apologies"),
)
# what the model does to a prompt of each kind that can be learned from
KINDS = {"harmful": "refuses", "harmless": "answers", "pseudo_harmful": "refuses"}
LAYERS_LEFT_OUT = 0.2  # of the blocks, the last ones
FEW = 32


@dataclass(frozen=True)
class Recipe:
    """How a direction is searched for."""

    train: int = 128  # prompts of each kind for the means
    validation: int = 32  # and for the choice
    kl: float = 0.2  # the most that the next token may move on harmless prompts, mean KL in nats
    mu: float = 1.0  # how much of the harm direction is taken out of the pseudo-harmful one
    seed: int = 0
    system: str | None = None
    thinking: bool = False


class Candidate(NamedTuple):
    """A direction and what its removal does to the validation prompts."""

    layer: int  # the block at whose input it was measured
    position: int  # and where: -1 is the prompt's last
    vector: torch.Tensor  # of unit length, float64 [hidden]
    kl: float  # mean KL on harmless prompts, in nats
    score: float  # mean refusal score of pseudo-harmful prompts, log odds


class Found(NamedTuple):
    best: Candidate
    before: float  # the score without it
    tried: int
    used: dict[str, int]  # prompts of each kind
    warnings: tuple[str, ...]


Progress = Callable[[str, int, int], None]
Prompts = dict[str, list[str]]  # by kind


class Scorer:
    """Refusal scores r = log p_R − log(1 − p_R), p_R the probability of the refusal tokens."""

    def __init__(self, model: LanguageModel, refusal: Sequence[int]) -> None:
        self._device, self._refusal = model.device, list(refusal)

    def logprobs(self, model: Any, ids: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the next token, float64 [vocab]."""
        import torch

        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([list(ids)], device=self._device), use_cache=False).logits
        # not every device has float64
        scores: torch.Tensor = logits[0, -1].float().cpu().double().log_softmax(-1)
        return scores

    def score(self, logprobs: torch.Tensor) -> float:
        """r, in log odds; finite also where p_R is 0 or 1."""
        p = float(logprobs[self._refusal].exp().sum().clamp(1e-12, 1 - 1e-12))
        return math.log(p) - math.log(1 - p)

    def mean(self, model: Any, prompts: Sequence[Sequence[int]]) -> float:
        return fmean(self.score(self.logprobs(model, ids)) for ids in prompts)


def find_direction(
    model: LanguageModel, prompts: Prompts, recipe: Recipe, *, progress: Progress = lambda *told: None
) -> Found:
    """Searches for the direction; `progress` is told what is being done, how much of it, and of how much.
    UsageError where there are too few prompts of a kind; ModelError where the model's blocks cannot be found;
    AdacdError where there is no direction."""
    from adacd_cli.backends.torch.views import AblatedView, find_blocks

    layers = range(int(len(find_blocks(model.model)) * (1 - LAYERS_LEFT_OUT)))
    train, validation, warnings = _split(prompts, recipe)
    encode = _Encoder(model, recipe)
    encoded = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in REFUSAL_STARTS]
    scorer = Scorer(model, sorted({ids[0] for ids in encoded if ids}))
    kept = _keep(model, scorer, encode, train, progress)
    for kind, does in KINDS.items():
        if len(kept[kind]) < FEW:
            left = f"{len(kept[kind])} of {len(train[kind])} {_spoken(kind)} prompts to learn from"
            warnings.append(f"Only {left}, those that the model {does}; use {FEW} or more.")
    means = {kind: _means(model, [*map(encode, kept[kind])], encode.positions) for kind in KINDS}
    harmless = [(ids, scorer.logprobs(model.model, ids)) for ids in map(encode, validation["harmless"])]
    pseudo = [encode(prompt) for prompt in validation["pseudo_harmful"]]
    places = [(layer, -1 - back) for layer in layers for back in range(encode.positions)]
    tried: list[Candidate] = []
    for done, place in enumerate(places, 1):
        if (vector := _direction(means, *place, recipe.mu)) is not None:
            view = AblatedView(model.model, vector)
            kls = [float((own.exp() * (own - scorer.logprobs(view, ids))).sum()) for ids, own in harmless]
            tried.append(Candidate(*place, vector, fmean(kls), scorer.mean(view, pseudo)))
        progress("Trying directions", done, len(places))
    allowed = [candidate for candidate in tried if candidate.kl <= recipe.kl]
    if not allowed:
        least = min((candidate.kl for candidate in tried), default=math.nan)
        within = f"within {recipe.kl:g} nats; the least was {least:.3g}"
        hint = "Allow more with --kl, or give more prompts of each kind."
        raise AdacdError(f"No direction keeps the mean KL on harmless prompts {within}.", hint)
    best, before = min(allowed, key=attrgetter("score")), scorer.mean(model.model, pseudo)
    if best.score >= before:
        warnings.append("No direction makes the model refuse less; try a lower --mu.")
    elif best.score > 0:
        warnings.append("Without it the model still refuses most pseudo-harmful prompts; try a lower --mu.")
    used = {kind: len(kept[kind]) for kind in KINDS}
    return Found(best, before, len(tried), used, tuple(warnings))


def _split(prompts: Prompts, recipe: Recipe) -> tuple[Prompts, Prompts, list[str]]:
    train, validation, warnings = {}, {}, list[str]()
    for kind in KINDS:
        texts = list(dict.fromkeys(prompts[kind]))
        if len(texts) < 2:
            hint = f"Give some {recipe.train + recipe.validation} of each kind."
            raise UsageError(f"At least 2 {_spoken(kind)} prompts are needed; got {len(texts)}.", hint)
        random.Random(recipe.seed).shuffle(texts)
        held = min(recipe.validation, max(1, len(texts) // 5))
        validation[kind], train[kind] = texts[:held], texts[held : held + recipe.train]
        if held < FEW:
            few = counted(held, f"{_spoken(kind)} prompt")
            warnings.append(f"Only {few} to choose with; use {FEW} or more.")
    return train, validation, warnings


def _spoken(kind: str) -> str:
    return kind.replace("_", "-")


class _Encoder:
    """Prompts as the base stream reads them; `positions`: how many last tokens are the same for any question."""

    def __init__(self, model: LanguageModel, recipe: Recipe) -> None:
        self._tokenizer, self._recipe = model.tokenizer, recipe
        ends = [self("Why?")[::-1], self("Count to 7")[::-1]]
        self.positions = max(1, shared_length(*ends))

    def __call__(self, prompt: str) -> tuple[int, ...]:
        conversation, thinking = Conversation.ask(prompt, self._recipe.system), self._recipe.thinking
        return build_prompts(self._tokenizer, conversation, {"unprompted": None}, thinking=thinking).base.ids


def _keep(
    model: LanguageModel, scorer: Scorer, encode: _Encoder, train: Prompts, progress: Progress
) -> Prompts:
    kept: Prompts = {kind: [] for kind in KINDS}
    total, done = sum(map(len, train.values())), 0
    for kind, does in KINDS.items():
        for prompt in train[kind]:
            score = scorer.score(scorer.logprobs(model.model, encode(prompt)))
            if score < 0 if does == "answers" else score > 0:
                kept[kind].append(prompt)
            done += 1
            progress("Running the prompts", done, total)
        if not kept[kind]:
            none = f"none of the {len(train[kind])} {_spoken(kind)} prompts"
            hint = "Give prompts that this model refuses (harmful, pseudo-harmful) and answers (harmless)."
            raise AdacdError(f"The model {does} {none}, so there is no direction to find.", hint)
    return kept


def _means(model: LanguageModel, prompts: Sequence[Sequence[int]], positions: int) -> torch.Tensor:
    """The mean input of every block at the last positions, the last one first, [layers, positions, hidden]."""
    import torch

    total = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for ids in prompts:
            inputs = torch.tensor([list(ids)], device=model.device)
            states = model.model(input_ids=inputs, use_cache=False, output_hidden_states=True).hidden_states
            # blocks of a model spread over GPUs give theirs on different ones; the last is the model's output
            last = [each[0, -positions:].flip(0).float().cpu().double() for each in states[:-1]]
            total = total + torch.stack(last)
    return total / len(prompts)


def _direction(means: dict[str, torch.Tensor], layer: int, position: int, mu: float) -> torch.Tensor | None:
    """w = v_pseudo − μ·(v_pseudo·v_harm) / (‖v_harm‖² + 1e-8)·v_harm, of unit length; None where it is 0."""
    place = layer, -1 - position
    harm = means["harmful"][place] - means["harmless"][place]
    pseudo = means["pseudo_harmful"][place] - means["harmless"][place]
    direction = pseudo - mu * (pseudo @ harm) / (harm @ harm + 1e-8) * harm
    length = direction.norm()
    return None if length < 1e-6 else direction / length
