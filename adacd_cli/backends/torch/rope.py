"""Where RoPE depends on how long the text is, so that its beginning gets other keys when it grows.

"longrope" (Phi-3 with 128k) turns all keys of a text otherwise that is longer than the length it was first
trained for; "dynamic" does so for every length past that. A beginning then can be neither read apart from the
rest nor taken over from another text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rope:
    """How a model's keys depend on the text's length; for most models not at all.

    Attributes:
        borders: lengths; a text that is longer has other keys from its first token on.
        limits: lengths past which every length has its own.
    """

    borders: tuple[int, ...] = ()
    limits: tuple[int, ...] = ()

    def alike(self, first: int, second: int) -> bool:
        """Whether texts of these lengths have the same keys as far as they begin alike."""
        longer = max(first, second)
        return self.side(first) == self.side(second) and all(longer <= limit for limit in self.limits)

    def side(self, tokens: int) -> tuple[bool, ...]:
        """On which side of each border a text of this length is: rows of one forward must be on the same."""
        return tuple(tokens > border for border in self.borders)


def text_config_of(model: Any) -> Any:
    """The configuration of the model's text decoder; None where it has none."""
    config = getattr(model, "config", None)
    return None if config is None else config.get_text_config(decoder=True)


def rope_of(model: Any) -> Rope:
    """What a model's configuration says of it."""
    text = text_config_of(model)
    parameters = getattr(text, "rope_parameters", None) or {}
    found: dict[str, list[int]] = {"longrope": [], "dynamic": []}
    for kind in (parameters, *parameters.values()):  # of all layers, or by the kind of layer
        if isinstance(kind, Mapping) and kind.get("rope_type") in found:
            length = kind.get("original_max_position_embeddings") or text.max_position_embeddings
            found[kind["rope_type"]].append(length)
    return Rope(tuple(found["longrope"]), tuple(found["dynamic"]))
