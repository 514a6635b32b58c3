"""What changes a step's final scores before a token is chosen: biases, penalties, ends that may not come yet, and a
grammar.

The order is that of `settings.PROCESSING`, which is transformers' own. Temperature, top-k, top-p and min-p come
afterwards, in `step.choose`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch.nn.functional import pad

from adacd_cli.config.settings import PROCESSING, Settings

# final scores of one request, float32 [1, vocab], in; the changed ones, a copy, out
Process = Callable[[torch.Tensor], torch.Tensor]


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
