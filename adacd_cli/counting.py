"""Numbers in sentences: `1 token`, `12,000 tokens`, `1.2 GB`."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number and its noun; `plural` is the noun of any number but 1, "" adds an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def amount(size: int) -> str:
    """Bytes in decimal units: `14 MB`, `1.2 GB`, `130 GB`."""
    if size < 999_500_000:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 99_500_000_000 else f"{size / 1e9:,.0f} GB"
