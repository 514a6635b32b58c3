"""Names of data sets → their samples: of known sets or the user's own files, and which `--limit` keeps.

Nothing is loaded before every name is understood.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import read_rows
from adacd_cli.evaluation.datasets.known import check_folder, load_known
from adacd_cli.evaluation.datasets.registry import KNOWN_SETS, KnownSet
from adacd_cli.evaluation.datasets.rows import to_samples
from adacd_cli.evaluation.records import LABELS, Label, Sample
from adacd_cli.suggest import known_names_hint


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """A set as it will be run.

    Attributes:
        name: the known set's, or the stem of the user's file.
        samples: those that `--limit` left, in the order of the source.
        source: path of the file, or `owner/name@commit` on the hub.
        sha256: of the samples' ids, prompts and labels, in hexadecimal.
        has_both_labels: whether some of the samples are safe and some unsafe.
    """

    name: str
    samples: tuple[Sample, ...]
    source: str
    sha256: str
    has_both_labels: bool


def load_samples(
    names: Sequence[str],
    *,
    data: Path | None,
    label: str | None,
    limit: int | None,
    seed: int,
    offline: bool,
    progress: Callable[[str], None] = lambda step: None,
) -> list[LoadedSet]:
    """Loads each of the named sets.

    Args:
        names: known sets, or paths of CSV, JSON Lines or text files.
        data: the folder where known sets are looked for first; see `known.data_folder`.
        label: of the files that have no labels of their own: safe, unsafe or None.
        limit: samples of each set and label, at least 1; None for all. See `choose`.
        seed: of that choice.
        offline: never ask the hub.
        progress: called with what takes a while.

    Raises:
        UsageError: a name, the folder, the label or the limit cannot be used, or a file is malformed.
        EnvironmentFault: a known set is not available; the hint says how to get it.
    """
    given = _parse_label(label)
    check_folder(data)
    sets = [KNOWN_SETS.get(name) or _file(name) for name in names]
    _check_names(sets, given)
    loaded = []
    for one in sets:
        if isinstance(one, KnownSet):
            samples, source = load_known(one, data=data, offline=offline, progress=progress)
        else:
            samples, source = _load_file(one, given), str(one)
        loaded.append(_loaded(_name(one), choose(samples, limit, seed), source))
    _check_rows(loaded)
    return loaded


def _parse_label(label: str | None) -> Label | None:
    for known in LABELS:
        if label == known:
            return known
    if label is None:
        return None
    raise UsageError(
        f"--label is safe or unsafe; got {label!r}.", "safe is a prompt to answer, unsafe one to refuse."
    )


def _file(name: str) -> Path:
    """The path that a name means that is no known set's."""
    path = Path(name).expanduser()
    if name and (path.exists() or path.suffix or os.sep in name):
        return path
    raise UsageError(
        f"There is no data set and no file named {name!r}.",
        f"{known_names_hint(name, KNOWN_SETS)} Or name a CSV, JSON Lines or text file.",
    )


def _name(one: KnownSet | Path) -> str:
    return one.name if isinstance(one, KnownSet) else one.stem


def _check_names(sets: Sequence[KnownSet | Path], label: Label | None) -> None:
    """Refuses a name that is given twice, and `--label` where no file is the user's own."""
    names = [_name(one) for one in sets]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two of the data sets are named {name!r}.", "Leave one out, or rename a file.")
    if label is not None and sets and all(isinstance(one, KnownSet) for one in sets):
        raise UsageError(
            f"--label is for files of your own; {names[0]} has its own labels.", "Leave --label out."
        )


def _check_rows(loaded: Iterable[LoadedSet]) -> None:
    """Refuses names that would be equal in a table: a set with both labels is two rows of it."""
    taken = {f"all {label}" for label in LABELS}
    for one in loaded:
        rows = [f"{one.name}-{label}" for label in LABELS] if one.has_both_labels else [one.name]
        for row in rows:
            if row in taken:
                raise UsageError(
                    f"The table would have two rows named {row!r}.", f"Rename the file of {one.name!r}."
                )
            taken.add(row)


def _load_file(path: Path, label: Label | None) -> tuple[Sample, ...]:
    return to_samples(
        read_rows(path),
        dataset=path.stem,
        source=str(path),
        label=label,
        forced=label is not None,
        number=lambda index: str(index + 1),
    )


def _loaded(name: str, samples: tuple[Sample, ...], source: str) -> LoadedSet:
    digest = sha256()
    for sample in samples:
        digest.update(json.dumps([sample.id, sample.prompt, sample.label]).encode() + b"\n")
    return LoadedSet(name, samples, source, digest.hexdigest(), len({sample.label for sample in samples}) > 1)


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples of each label, in the order they came in.

    The categories keep their shares, and which of a category's samples are taken is drawn by the seed. The
    choice depends on the seed, the set and the ids alone, not on the order of the rows or the version of
    Python, and a larger limit only adds to a smaller one's choice.

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
