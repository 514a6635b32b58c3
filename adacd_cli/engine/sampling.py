"""From scores to a token: greedy, or temperature, top-k and top-p with an explicit generator per row.

Every row draws its own noise from its own generator, so a request's tokens do not depend on its batch, and
the plain token of a step is judged by the same draw as the chosen one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def make_generator(seed: int, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded."""
    return torch.Generator(device=device).manual_seed(seed)


def draw_noise(generators: Sequence[torch.Generator], vocab: int, device: torch.device) -> torch.Tensor:
    """Exponential(1) noise, float32 [rows, vocab]: argmax(p / noise) is a draw from p."""
    noise = torch.empty((len(generators), vocab), dtype=torch.float32, device=device)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return noise


def choose(scores: torch.Tensor, settings: Settings, noise: torch.Tensor | None) -> torch.Tensor:
    """The chosen token of each row.

    Args:
        scores: float32 [rows, vocab]; -inf tokens are never chosen.
        settings: `temperature` (0 is greedy), `top_k` (0 is off), `top_p` (1 is off).
        noise: what `draw_noise` gave for these rows; not looked at when greedy.

    Returns:
        int64 [rows].
    """
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
    return (scaled.softmax(dim=-1) / noise).argmax(dim=-1)
