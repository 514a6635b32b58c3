"""Finds the direction of false refusal in a model's residual stream (Surgical; Wang et al., ICLR 2025).

The candidates are the mean differences between pseudo-harmful and harmless prompts, at each position after the
question and each block, minus the part that harm itself has there. Chosen is the one whose removal makes the
model refuse pseudo-harmful prompts least, without changing what it says to harmless ones.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from adacd_cli.conversation import Conversation
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError, UsageError
from adacd_cli.evaluation.refusal_score import REFUSAL_STARTS, Scorer, refusal_ids
from adacd_cli.prompts import build_prompts
from adacd_cli.prompts.prompts import shared_length

if TYPE_CHECKING:
    import torch

    from adacd_cli.engine import LanguageModel

KINDS = ("harmful", "harmless", "pseudo_harmful")
LAYERS_LEFT_OUT = 0.2
FEW = 32
_TINY = 1e-6


@dataclass(frozen=True)
class Recipe:
    """How a direction is searched for.

    Attributes:
        train: prompts of each kind for the means.
        validation: prompts of each kind for the choice.
        kl: the most that the next token's distribution may move on harmless prompts, mean KL in nats.
        mu: how much of the harm direction is taken out of the pseudo-harmful one.
        seed: of the split.
        refusal_starts: see REFUSAL_STARTS.
        system: system message of every prompt.
        thinking: whether a thinking model may think before it answers.
    """

    train: int = 128
    validation: int = 32
    kl: float = 0.2
    mu: float = 1.0
    seed: int = 0
    refusal_starts: tuple[str, ...] = REFUSAL_STARTS
    system: str | None = None
    thinking: bool = False


@dataclass(frozen=True)
class Candidate:
    """A direction, of unit length, float64 [hidden], and what its removal does.

    Attributes:
        layer: block at whose input it was measured.
        position: from the end of the prompt, -1 is the last.
        kl: mean KL on harmless validation prompts, in nats.
        score: mean refusal score of pseudo-harmful validation prompts, log odds.
    """

    layer: int
    position: int
    vector: torch.Tensor
    kl: float
    score: float


class Found(NamedTuple):
    """The chosen direction, the refusal score before, and what it was chosen from."""

    best: Candidate
    before: float
    tried: int
    used: dict[str, int]
    warnings: tuple[str, ...]


Progress = Callable[[str, int, int], None]


def find_direction(
    model: LanguageModel,
    prompts: dict[str, list[str]],
    recipe: Recipe,
    *,
    progress: Progress = lambda what, done, total: None,
) -> Found:
    """Searches for the direction.

    Args:
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: there are too few prompts of a kind.
        ModelError: the model's blocks cannot be found.
        AdacdError: there is no direction; the message says why.
    """
    from adacd_cli.backends.torch.views import find_blocks

    blocks = find_blocks(model.model)
    train, validation, warnings = _split(prompts, recipe)
    encode = _Encoder(model, recipe)
    refusal = refusal_ids(model, recipe.refusal_starts)
    scorer = Scorer(model, refusal)
    kept = _keep(model, scorer, encode, train, progress)
    for kind in KINDS:
        if len(kept[kind]) < FEW:
            found = f"{len(kept[kind])} of {len(train[kind])} {_spoken(kind)} prompts"
            warnings.append(
                f"Only {found} to learn from, those that the model {_wanted(kind)}; use {FEW} or more."
            )
    means = {
        kind: _means(model, blocks, [encode(each) for each in kept[kind]], encode.positions) for kind in KINDS
    }
    harmless = [(ids, scorer.logprobs(model.model, ids)) for ids in map(encode, validation["harmless"])]
    pseudo = [encode(prompt) for prompt in validation["pseudo_harmful"]]
    layers = range(int(len(blocks) * (1 - LAYERS_LEFT_OUT)))
    places = [(layer, -1 - back) for layer in layers for back in range(encode.positions)]
    tried: list[Candidate] = []
    for done, place in enumerate(places, 1):
        vector = _direction(means, *place, recipe.mu)
        if vector is not None:
            tried.append(_try(scorer, model, vector, place, harmless, pseudo))
        progress("Trying directions", done, len(places))
    allowed = [candidate for candidate in tried if candidate.kl <= recipe.kl]
    if not allowed:
        least = min((candidate.kl for candidate in tried), default=math.nan)
        raise AdacdError(
            f"No direction keeps the mean KL on harmless prompts within {recipe.kl:g} nats; the least was "
            f"{least:.3g}.",
            "Allow more with --kl, or give more prompts of each kind.",
        )
    best, before = min(allowed, key=lambda candidate: candidate.score), scorer.mean(model.model, pseudo)
    if best.score >= before:
        warnings.append("No direction makes the model refuse less; try a lower --mu.")
    elif best.score > 0:
        warnings.append("Without it the model still refuses most pseudo-harmful prompts; try a lower --mu.")
    used = {kind: len(kept[kind]) for kind in KINDS}
    return Found(best, before, len(tried), used, tuple(warnings))


def _split(
    prompts: dict[str, list[str]], recipe: Recipe
) -> tuple[dict[str, list[str]], dict[str, list[str]], list[str]]:
    """Train and validation prompts of each kind, drawn with the seed."""
    train, validation, warnings = {}, {}, list[str]()
    for kind in KINDS:
        texts = list(dict.fromkeys(prompts[kind]))
        if len(texts) < 2:
            raise UsageError(
                f"At least 2 {_spoken(kind)} prompts are needed; got {len(texts)}.",
                f"Give some {recipe.train + recipe.validation} of each kind.",
            )
        random.Random(recipe.seed).shuffle(texts)
        held = min(recipe.validation, max(1, len(texts) // 5))
        validation[kind], train[kind] = texts[:held], texts[held : held + recipe.train]
        if held < FEW:
            few = counted(held, f"{_spoken(kind)} prompt")
            warnings.append(f"Only {few} to choose with; use {FEW} or more.")
    return train, validation, warnings


def _wanted(kind: str) -> str:
    """What the model does to a prompt of the kind that can be learned from."""
    return "answers" if kind == "harmless" else "refuses"


def _spoken(kind: str) -> str:
    return kind.replace("_", "-")


class _Encoder:
    """Prompts as the base stream reads them; `positions`: how many last tokens are the same for any question."""

    def __init__(self, model: LanguageModel, recipe: Recipe) -> None:
        self._tokenizer, self._recipe = model.tokenizer, recipe
        ends = [self("Why?")[::-1], self("Count to 7")[::-1]]
        self.positions = max(1, shared_length(*ends))

    def __call__(self, prompt: str) -> tuple[int, ...]:
        conversation = Conversation.ask(prompt, self._recipe.system)
        prompts = build_prompts(
            self._tokenizer, conversation, {"unprompted": None}, thinking=self._recipe.thinking
        )
        return prompts.base.ids


def _keep(
    model: LanguageModel, scorer: Scorer, encode: _Encoder, train: dict[str, list[str]], progress: Progress
) -> dict[str, list[str]]:
    """The prompts that behave as their kind should: refused, answered, and refused."""
    kept: dict[str, list[str]] = {kind: [] for kind in KINDS}
    total, done = sum(map(len, train.values())), 0
    for kind in KINDS:
        for prompt in train[kind]:
            score = scorer.score(scorer.logprobs(model.model, encode(prompt)))
            if score < 0 if kind == "harmless" else score > 0:
                kept[kind].append(prompt)
            done += 1
            progress("Running the prompts", done, total)
        if not kept[kind]:
            raise AdacdError(
                f"The model {_wanted(kind)} none of the {len(train[kind])} {_spoken(kind)} prompts, so there is "
                "no direction to find.",
                "Give prompts that this model refuses (harmful, pseudo-harmful) and answers (harmless).",
            )
    return kept


def _means(
    model: LanguageModel, blocks: Sequence[Any], prompts: Sequence[Sequence[int]], positions: int
) -> torch.Tensor:
    """The mean input of every block at the last positions, float64 [layers, positions, hidden].

    Position -1 comes first, then -2, and so on.
    """
    import torch

    seen: dict[int, torch.Tensor] = {}
    handles = []
    for layer, block in enumerate(blocks):

        def watch(module: Any, args: Any, kwargs: Any, layer: int = layer) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            # blocks of a model spread over GPUs give theirs on different ones
            seen[layer] = states[0, -positions:].flip(0).float().cpu().double()

        handles.append(block.register_forward_pre_hook(watch, with_kwargs=True))
    total: torch.Tensor | None = None
    try:
        with torch.inference_mode():
            for ids in prompts:
                model.model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
                layers = torch.stack([seen[layer] for layer in range(len(blocks))])
                total = layers if total is None else total + layers
    finally:
        for handle in handles:
            handle.remove()
    assert total is not None, "every kind has a prompt left"
    return total / len(prompts)


def _direction(means: dict[str, torch.Tensor], layer: int, position: int, mu: float) -> torch.Tensor | None:
    """w = v_pseudo − μ·(v_pseudo·v_harm) / (‖v_harm‖² + 1e-8)·v_harm, of unit length; None where it is 0."""
    place = layer, -1 - position
    harm = means["harmful"][place] - means["harmless"][place]
    pseudo = means["pseudo_harmful"][place] - means["harmless"][place]
    direction = pseudo - mu * (pseudo @ harm) / (harm @ harm + 1e-8) * harm
    length = direction.norm()
    return None if length < _TINY else direction / length


def _try(
    scorer: Scorer,
    model: LanguageModel,
    vector: torch.Tensor,
    place: tuple[int, int],
    harmless: Sequence[tuple[Sequence[int], torch.Tensor]],
    pseudo: Sequence[Sequence[int]],
) -> Candidate:
    """What the removal of a direction does to the validation prompts."""
    from adacd_cli.backends.torch.views import AblatedView

    view = AblatedView(model.model, vector)
    kl = 0.0
    for ids, plain in harmless:
        changed = scorer.logprobs(view, ids)
        kl += float((plain.exp() * (plain - changed)).sum())
    return Candidate(*place, vector, kl / len(harmless), scorer.mean(view, pseudo))
