"""What the engine needs of a model, whoever loaded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to decode.

    Attributes:
        model: a `transformers` causal LM in eval mode, or anything called the same way.
        tokenizer: its tokenizer; the engine only calls `decode`.
        name: what the user asked for: hub id, folder, file or `demo`.
        revision: commit or branch on the hub; None elsewhere.
        eos_ids: every id that ends an answer: tokenizer's, model config's and generation config's together.
        context_length: positions the model was built for; None where it names none.
        warnings: what the user should know about how it was loaded, one sentence each.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    eos_ids: frozenset[int]
    context_length: int | None
    warnings: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        device: torch.device = self.model.device
        return device
