"""What changes a step's final scores before a token is chosen: biases, penalties, and ends that may not come yet.

The order is that of `settings.PROCESSING`, which is transformers' own. Temperature, top-k, top-p and min-p come
afterwards, in `step.choose`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

import torch

from adacd_cli.config.settings import PROCESSING, Settings

Process = Callable[[torch.Tensor], torch.Tensor]
"""Final scores of one request, float32 [1, vocab], in; the changed ones, a copy, out."""


def is_processed(settings: Settings) -> bool:
    """Whether any of the settings changes final scores."""
    return not settings.controls.keys().isdisjoint(PROCESSING)


class ScoreProcessor:
    """Changes the scores of one request. Ids beyond the vocabulary have no effect.

    Args:
        prompt: the ids of the base stream's prompt, which the repetition penalty counts as well.
        ends: the ids that end the answer, which have no score before `min_tokens`.
        device: where the scores are.
    """

    def __init__(
        self, settings: Settings, prompt: Sequence[int], ends: Collection[int], device: torch.device
    ) -> None:
        self._settings = settings
        biases = settings.biases
        self._biased = torch.tensor(list(biases), dtype=torch.long, device=device)
        self._biases = torch.tensor(list(biases.values()), dtype=torch.float32, device=device)
        self._prompt = frozenset(prompt)
        self._ends = torch.tensor(sorted(ends), dtype=torch.long, device=device)

    def __call__(self, scores: torch.Tensor, answer: Sequence[int]) -> torch.Tensor:
        """The changed scores, a copy; `answer` is what was answered so far."""
        settings, scores, vocab = self._settings, scores.clone(), scores.shape[-1]
        known = self._biased < vocab
        scores[:, self._biased[known]] += self._biases[known]
        if (penalty := settings.repetition_penalty) != 1:
            seen = [token for token in self._prompt.union(answer) if token < vocab]
            own = scores[:, seen]
            scores[:, seen] = torch.where(own < 0, own * penalty, own / penalty)
        if settings.frequency_penalty or settings.presence_penalty:
            counts = Counter(token for token in answer if token < vocab)
            each = torch.tensor(list(counts.values()), dtype=torch.float32, device=scores.device)
            scores[:, list(counts)] -= each * settings.frequency_penalty + settings.presence_penalty
        if len(answer) < settings.min_tokens:
            scores[:, self._ends[self._ends < vocab]] = -torch.inf
        return scores
