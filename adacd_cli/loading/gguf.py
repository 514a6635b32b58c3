"""GGUF files: parsed once, though transformers asks for configuration, tokenizer and weights apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache


@contextmanager
def read_once() -> Iterator[None]:
    """Lets transformers open a GGUF file as often as it likes while Python parses it a single time.

    Parsing the vocabulary takes the gguf package seconds, and transformers does it anew for each part.
    """
    import gguf

    reader = gguf.GGUFReader
    gguf.GGUFReader = lru_cache(maxsize=1)(reader)
    try:
        yield
    finally:
        gguf.GGUFReader = reader
