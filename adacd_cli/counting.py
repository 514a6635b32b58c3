"""Counts in sentences: `1 token`, `2 tokens`, `12,000 tokens`."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number and its noun.

    Args:
        count: how many.
        noun: of one.
        plural: of any other number; "" adds an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
