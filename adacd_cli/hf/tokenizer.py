"""The tokenizer that lies beside a model's weights, for a caller who gives none."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformers import AutoTokenizer


def tokenizer_of(model: Any) -> Any:
    """The tokenizer of the folder, or of the hub's copy on this machine, that the model was loaded from.

    Args:
        model: a transformers model.

    Returns:
        None where the model came from nowhere, or there is no tokenizer; nothing is downloaded.
    """
    name = getattr(model, "name_or_path", "")
    return _tokenizer_in(name) if name else None


@lru_cache(maxsize=4)
def _tokenizer_in(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception:  # missing files, unknown classes, JSON errors: each tokenizer its own
        return None
