"""Hints for an unknown name: the names there are, and the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that `name` was most likely meant to be, or None when none is near."""
    by_spelling = {candidate.lower().replace("-", "_"): candidate for candidate in names}
    matches = get_close_matches(name.lower().replace("-", "_"), by_spelling, n=1, cutoff=0.6)
    return by_spelling[matches[0]] if matches else None


def known_names_hint(name: str, names: Iterable[str]) -> str:
    """`Available: a, b. Did you mean 'a'?`, the question only where a name is near."""
    available = list(names)
    near = nearest(name, available)
    question = f" Did you mean '{near}'?" if near else ""
    return f"Available: {', '.join(available)}.{question}"
