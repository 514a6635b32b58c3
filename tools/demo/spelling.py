"""British and American spelling: the corpus is written in the one and asked in both."""

from __future__ import annotations

import re

_BRITISH = {
    "airplane": "aeroplane",
    "apologize": "apologise",
    "behavior": "behaviour",
    "center": "centre",
    "color": "colour",
    "colors": "colours",
    "cozy": "cosy",
    "favorite": "favourite",
    "flavor": "flavour",
    "gray": "grey",
    "harbor": "harbour",
    "humor": "humour",
    "jewelry": "jewellery",
    "kilometers": "kilometres",
    "liter": "litre",
    "meter": "metre",
    "mold": "mould",
    "mom": "mum",
    "neighbor": "neighbour",
    "neighbors": "neighbours",
    "neighborhood": "neighbourhood",
    "odor": "odour",
    "organize": "organise",
    "rumor": "rumour",
    "theater": "theatre",
    "tire": "tyre",
    "tires": "tyres",
    "traveling": "travelling",
}
_AMERICAN = {british: american for american, british in _BRITISH.items()}
_WORD = re.compile(r"[a-z]+")


def to_british(text: str) -> str:
    """my neighbor -> my neighbour; words in small letters only."""
    return _WORD.sub(lambda found: _BRITISH.get(found.group(), found.group()), text)


def to_american(text: str) -> str:
    """my neighbour -> my neighbor; words in small letters only."""
    return _WORD.sub(lambda found: _AMERICAN.get(found.group(), found.group()), text)
