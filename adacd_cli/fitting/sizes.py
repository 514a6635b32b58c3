"""How many prompts a fit takes for each of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from adacd_cli.fitting.corpus import KINDS, Kind

SHORT = 0.6
"""Share of the prompts that are the shortest ones: they teach the switch most, and cost least."""


@dataclass(frozen=True)
class Sizes:
    """How many prompts each step takes, by kind; `paper`: those held out that the paper's settings answer."""

    train: Mapping[Kind, int]
    test: Mapping[Kind, int]
    paper: Mapping[Kind, int]
    opened: Mapping[Kind, int]
    obeyed: int
    acted: int


FULL = Sizes(
    {"safe": 320, "unsafe": 320, "neutral": 60},
    {"safe": 40, "unsafe": 40, "neutral": 20},
    {"safe": 16, "unsafe": 16, "neutral": 8},
    {"safe": 24, "unsafe": 36, "neutral": 10},
    *(3, 12),
)
QUICK = Sizes(
    {"safe": 100, "unsafe": 100, "neutral": 24},
    {"safe": 20, "unsafe": 20, "neutral": 12},
    {"safe": 10, "unsafe": 10, "neutral": 6},
    {"safe": 12, "unsafe": 16, "neutral": 10},
    *(2, 10),
)


THOROUGH = replace(
    FULL,
    train=dict.fromkeys(KINDS, 10_000),
    test={kind: 2 * count for kind, count in FULL.test.items()},
    opened={kind: 2 * count for kind, count in FULL.opened.items()},
)
