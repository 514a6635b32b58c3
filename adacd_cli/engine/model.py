"""What the engine needs of a model, whoever loaded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHOD_NAMES
from adacd_cli.engine.protocol import AnyDecoder, Cancelled, Failed, never
from adacd_cli.errors import ModelError

if TYPE_CHECKING:
    import torch

    from adacd_cli.config import Settings
    from adacd_cli.config.methods import Method, SecondStream
    from adacd_cli.engine.compiled import Compiled
    from adacd_cli.engine.places import Places
    from adacd_cli.engine.prefixes import Prefixes


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
        extras: what methods need besides, by (setting, its value): ("expert", folder), ("draft", name) or
            ("direction", folder) to a model that is called the same way; see `loading.load_extras`.
        context_lengths: positions that a draft was built for, under its key in `extras`.
        compiled: the model's compiled forwards; None where it is called as it is.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    eos_ids: frozenset[int]
    context_length: int | None
    warnings: tuple[str, ...] = ()
    extras: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    context_lengths: Mapping[tuple[str, str], int] = field(default_factory=dict)
    compiled: Compiled | None = None

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype_name(self) -> str | None:
        """The number format of its weights, such as `bfloat16`; None where they are not here."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that it can be decoded with; one that is loaded here can be with all."""
        return METHOD_NAMES

    @property
    def at_once(self) -> int | None:
        """How many requests run at once where nobody says; None where memory decides."""
        return None

    def served_facts(self) -> dict[str, str]:
        """What is known of the server that runs it, by name; nothing where it runs here."""
        return {}

    def decoder(
        self,
        *,
        places: Places | None = None,
        candidates: int = 0,
        known: Prefixes | None = None,
        cancelled: Cancelled = never,
        failed: Failed | None = None,
    ) -> AnyDecoder:
        """What decodes requests with it; see `Decoder`."""
        from adacd_cli.engine.decoder import Decoder

        return Decoder(
            self, places=places, candidates=candidates, known=known, cancelled=cancelled, failed=failed
        )

    def require(self, method: Method) -> None:
        """Refuses a method that is not one of `methods`.

        Raises:
            ConfigurationError: the method needs what the model's engine does not give.
        """

    def context_for(self, method: Method, settings: Settings) -> int | None:
        """Positions that every model which the method runs was built for; None where none names any."""
        own = [] if self.context_length is None else [self.context_length]
        if method.resource == "draft":
            own += [n for key, n in self.context_lengths.items() if key == ("draft", settings.draft)]
        return min(own, default=None)

    def first(self, method: Method, settings: Settings) -> Any:
        """What reads the method's first stream.

        Raises:
            ModelError: it is not loaded.
        """
        return self._part("direction", settings) if method.resource == "direction" else self.model

    def second(self, stream: SecondStream, settings: Settings) -> Any:
        """What reads a method's second stream.

        Raises:
            ModelError: it is not loaded.
        """
        return self.model if stream.runs == "model" else self._part(stream.runs, settings)

    def _part(self, resource: str, settings: Settings) -> Any:
        value = getattr(settings, resource)
        if (resource, value) not in self.extras:
            raise ModelError(
                f"Method {settings.effective_method} needs `{resource}`, which is not loaded.",
                "Name it in the settings and load it with adacd_cli.load_extras(model, settings).",
            )
        return self.extras[resource, value]
