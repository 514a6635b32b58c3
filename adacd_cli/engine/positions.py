"""Up to which length a text's beginning has the keys that it has by itself.

RoPE that is scaled by the length of the text turns the keys of a longer text otherwise, from the first token
on: "dynamic" ones past the length that the model was trained for, "longrope" (Phi-3 with 128k) past its
original one. There a beginning can neither be read apart from the rest nor be taken over from another prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_BY_LENGTH = ("dynamic", "longrope")


def keeps_its_keys(model: Any, tokens: int) -> bool:
    """Whether a text of so many tokens turns no key otherwise than its beginnings do."""
    config = getattr(model, "config", None)
    text = None if config is None else config.get_text_config(decoder=True)
    return all(tokens <= limit for limit in _limits(text))


def _limits(config: Any) -> Iterator[int]:
    parameters = getattr(config, "rope_parameters", None) or {}
    for kind in (parameters, *parameters.values()):  # of all layers, or by the kind of layer
        if isinstance(kind, Mapping) and kind.get("rope_type") in _BY_LENGTH:
            yield kind.get("original_max_position_embeddings") or config.max_position_embeddings
