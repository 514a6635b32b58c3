"""`--limit N`: which N samples of each label of a set stand for all of them.

The categories keep their shares, and which of a category's samples are taken is drawn by the seed. The choice
depends on the seed, the set and the ids alone, not on the order of the rows or the version of Python, and a
larger limit only adds to a smaller one's choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.records import LABELS, Sample


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples of each label, in the order they came in.

    Args:
        samples: of one set, each with an id of its own.
        limit: samples a label, at least 1; None for all.
        seed: any whole number.

    Raises:
        UsageError: the limit is below 1.
    """
    if limit is None:
        return tuple(samples)
    if limit < 1:
        raise UsageError(f"--limit is at least 1; got {limit}.", "It counts samples of each set and label.")
    chosen: set[str] = set()
    for label in LABELS:
        alike = [sample for sample in samples if sample.label == label]
        chosen.update(sample.id for sample in _by_turns(alike, seed)[:limit])
    return tuple(sample for sample in samples if sample.id in chosen)


def _by_turns(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """All of them, so ordered that any beginning holds the categories in nearly their shares.

    This is Webster's method of apportionment: the j-th sample of a category with n comes at (j − ½) / n.
    """
    categories: defaultdict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for sample in samples:
        categories[sample.category].append((_lot(sample, seed), sample))
    turns: list[tuple[float, str, Sample]] = []
    for members in categories.values():
        members.sort(key=lambda member: member[0])
        turns += [((place + 0.5) / len(members), lot, sample) for place, (lot, sample) in enumerate(members)]
    turns.sort(key=lambda turn: turn[:2])
    return [sample for _, _, sample in turns]


def _lot(sample: Sample, seed: int) -> str:
    return sha256(f"{seed}\n{sample.dataset}\n{sample.id}".encode("utf-8", "surrogatepass")).hexdigest()
