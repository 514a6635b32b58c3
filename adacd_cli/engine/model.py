"""What the engine needs of a model, whoever loaded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from adacd_cli.config import Settings
    from adacd_cli.config.methods import Method, SecondStream


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
        equipment: what methods need besides, by (setting, its value): ("expert", folder), ("draft", name) or
            ("direction", folder) to a model that is called the same way; see `loading.equip`.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    eos_ids: frozenset[int]
    context_length: int | None
    warnings: tuple[str, ...] = ()
    equipment: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        device: torch.device = self.model.device
        return device

    def first(self, method: Method, settings: Settings) -> Any:
        """What reads the method's first stream."""
        if method.resource == "direction":
            return self.equipment["direction", settings.direction]  # type: ignore[index]
        return self.model

    def second(self, stream: SecondStream, settings: Settings) -> Any:
        """What reads a method's second stream."""
        if stream.runs == "model":
            return self.model
        return self.equipment[stream.runs, getattr(settings, stream.runs)]
