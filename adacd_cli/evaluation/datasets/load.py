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

    Raises:
        UsageError: a name, the folder, the label or the limit cannot be used, or a file is malformed.
        EnvironmentFault: a known set is not available; the hint says how to get it.
    """
    own = next((known for known in LABELS if label == known), None)
    if own != label:
        raise UsageError(
            f"--label is safe or unsafe; got {label!r}.", "safe is a prompt to answer, unsafe one to refuse."
        )
    check_folder(data)
    sets = [KNOWN_SETS.get(name) or _file(name) for name in names]
    titles = [one.name if isinstance(one, KnownSet) else one.stem for one in sets]
    for title in titles:
        if titles.count(title) > 1:
            raise UsageError(f"Two of the data sets are named {title!r}.", "Leave one out, or rename a file.")
    if own is not None and sets and all(isinstance(one, KnownSet) for one in sets):
        raise UsageError(
            f"--label is for files of your own; {titles[0]} has its own labels.", "Leave --label out."
        )
    loaded = []
    for title, one in zip(titles, sets, strict=True):
        if isinstance(one, KnownSet):
            samples, source = load_known(one, data=data, offline=offline, progress=progress)
        else:
            samples, source = _load_file(one, own), str(one)
        chosen, digest = choose(samples, limit, seed), sha256()
        for sample in chosen:
            digest.update(json.dumps([sample.id, sample.prompt, sample.label]).encode() + b"\n")
        both = len({sample.label for sample in chosen}) > 1
        loaded.append(LoadedSet(title, chosen, source, digest.hexdigest(), both))
    _check_rows(loaded)
    return loaded


def _file(name: str) -> Path:
    """The path that a name means that is no known set's."""
    path = Path(name).expanduser()
    if name and (path.exists() or path.suffix or os.sep in name):
        return path
    raise UsageError(
        f"There is no data set and no file named {name!r}.",
        f"{known_names_hint(name, KNOWN_SETS)} Or name a CSV, JSON Lines or text file.",
    )


def _check_rows(loaded: Iterable[LoadedSet]) -> None:
    """Refuses names that would be equal in a table: a set with both labels is two rows of it."""
    taken = {f"all {label}" for label in LABELS}
    for one in loaded:
        for row in [f"{one.name}-{label}" for label in LABELS] if one.has_both_labels else [one.name]:
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


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples of each label, in the order they came in.

    The categories keep their shares, and which of a category's samples are taken is drawn by the seed. The
    choice depends on the seed, the set and the ids alone, not on the order of the rows or the version of
    Python, and a larger limit only adds to a smaller one's choice.

    Args:
        samples: of one set, each with an id of its own.
        limit: samples a label, at least 1; None for all.

    Raises:
        UsageError: the limit is below 1.
    """
    if limit is None:
        return tuple(samples)
    if limit < 1:
        raise UsageError(f"--limit is at least 1; got {limit}.", "It counts samples of each set and label.")
    categories: defaultdict[tuple[str, str], list[tuple[str, Sample]]] = defaultdict(list)
    for sample in samples:
        name = f"{seed}\n{sample.dataset}\n{sample.id}"
        lot = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        categories[sample.label, sample.category].append((lot, sample))
    # Webster's method of apportionment: the j-th sample of a category with n comes at (j − ½) / n
    turns: defaultdict[str, list[tuple[float, str, str]]] = defaultdict(list)
    for (label, _), members in categories.items():
        members.sort(key=lambda member: member[0])
        turns[label] += [
            ((place + 0.5) / len(members), lot, sample.id) for place, (lot, sample) in enumerate(members)
        ]
    chosen = {id for own in turns.values() for _, _, id in sorted(own)[:limit]}
    return tuple(sample for sample in samples if sample.id in chosen)
