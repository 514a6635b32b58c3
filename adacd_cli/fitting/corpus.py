"""The prompts that a profile is fitted on: bundled ones, written for it, or the user's own; and how many of them
each step takes."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import chain
from typing import Literal, get_args

from adacd_cli.errors import UsageError

Kind = Literal["safe", "unsafe", "neutral"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# how many prompts of each kind a fit needs
LEAST: Mapping[Kind, int] = {"safe": 40, "unsafe": 40, "neutral": 10}
HELD_OUT = 5  # every so many groups of prompts are held out, to be measured on


@dataclass(frozen=True)
class FitPrompt:
    """A prompt; those of one `group` share their alarming words and stay together when prompts are divided. `kind`:
    safe is harmless with alarming words, unsafe harmful, neutral ordinary."""

    id: str
    kind: Kind
    group: str
    text: str

    @property
    def held_out(self) -> bool:
        return hashlib.sha256(self.group.encode()).digest()[0] % HELD_OUT == 0


def digest(*texts: str) -> str:
    """16 hexadecimal digits that tell texts apart."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def bundled() -> list[FitPrompt]:
    """The prompts that come with the package."""
    lines = files("adacd_cli.profiles").joinpath("prompts.jsonl").read_text(encoding="utf-8").splitlines()
    found = map(json.loads, lines)
    return [FitPrompt(one["id"], one["label"], one["pair"] or one["id"], one["prompt"]) for one in found]


def own(prompts: Mapping[Kind, Sequence[str]]) -> list[FitPrompt]:
    """The user's prompts, each a group of its own; UsageError where there are too few of a kind, or one stands
    under two kinds."""
    found: dict[str, FitPrompt] = {}
    for kind, texts in prompts.items():
        for text in texts:
            stripped = text.strip()
            before = found.setdefault(stripped, FitPrompt(f"{kind}-{len(found)}", kind, stripped, text))
            if before.kind != kind:
                what = f"The same prompt is under --{before.kind} and --{kind}: {stripped[:80]!r}."
                raise UsageError(what, "Leave it in the file where it belongs.")
    for kind, least in LEAST.items():
        count = sum(each.kind == kind for each in found.values())
        if count < least:
            what = f"--{kind} has {count} different prompts, and a fit needs at least {least}."
            raise UsageError(what, "Add more, or leave the files out to use the bundled prompts.")
    return list(found.values())


def chosen(
    prompts: Iterable[FitPrompt], limits: Mapping[Kind, int], *, held_out: bool, short: float = 0.0
) -> list[FitPrompt]:
    """At most so many of each kind, the same ones each time, whole groups where that is possible. SHORT is the
    share of them that are the shortest there are, in [0, 1]; the others are drawn by chance."""
    groups: dict[str, list[FitPrompt]] = {}
    for prompt in prompts:
        if prompt.held_out == held_out:
            groups.setdefault(prompt.group, []).append(prompt)
    order = list(groups.values())
    random.Random(0).shuffle(order)
    plain = sorted(order, key=lambda group: max(len(each.text) for each in group))
    shortest = first_of_each(chain(*plain), {kind: int(short * limit) for kind, limit in limits.items()})
    counts = Counter(each.kind for each in shortest)
    taken = set(shortest)
    others = [each for each in chain(*order) if each not in taken]
    taken.update(first_of_each(others, {kind: limits[kind] - counts[kind] for kind in limits}))
    return [each for each in chain(*order) if each in taken]


def first_of_each(prompts: Iterable[FitPrompt], limits: Mapping[Kind, int]) -> list[FitPrompt]:
    """The first prompts of each kind, so many at most, in their order."""
    left, taken = dict(limits), []
    for prompt in prompts:
        if left[prompt.kind] > 0:
            left[prompt.kind] -= 1
            taken.append(prompt)
    return taken


SHORT = 0.6  # share of the prompts that are the shortest ones: they teach the switch most, and cost least


@dataclass(frozen=True)
class Sizes:
    """How many prompts each step takes, by kind; `paper`: those held out that the paper's settings answer."""

    train: Mapping[Kind, int]
    test: Mapping[Kind, int]
    paper: Mapping[Kind, int]
    opened: Mapping[Kind, int]
    obeyed: int
    acted: int


def _of(*counts: int) -> Mapping[Kind, int]:
    return dict(zip(KINDS, counts, strict=True))


FULL = Sizes(_of(320, 320, 60), _of(40, 40, 20), _of(16, 16, 8), _of(24, 36, 10), obeyed=3, acted=12)
QUICK = Sizes(_of(100, 100, 24), _of(20, 20, 12), _of(10, 10, 6), _of(12, 16, 10), obeyed=2, acted=10)
THOROUGH = replace(FULL, train=dict.fromkeys(KINDS, 10_000), test=_of(80, 80, 40), opened=_of(48, 72, 20))
