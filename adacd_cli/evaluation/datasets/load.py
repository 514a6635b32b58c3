"""Names of data sets -> their samples: of known sets, and of the user's own files.

Nothing is loaded before every name is understood.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.choose import choose
from adacd_cli.evaluation.datasets.files import read_rows
from adacd_cli.evaluation.datasets.folder import check_folder
from adacd_cli.evaluation.datasets.known import load_known
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
        data: the folder where known sets are looked for first; see `folder.data_folder`.
        label: of the files that have no labels of their own: safe, unsafe or None.
        limit: samples of each set and label, at least 1; None for all. See `choose`.
        seed: of that choice.
        offline: never ask the hub.
        progress: told what takes its time.

    Raises:
        UsageError: a name, the folder, the label or the limit cannot be used, or a file is malformed.
        EnvironmentFault: a known set cannot be had; the hint says how to get it.
    """
    given = _parse_label(label)
    check_folder(data)
    sets = [KNOWN_SETS.get(name) or _file(name) for name in names]
    _refuse_same_names(sets)
    _refuse_idle_label(sets, given)
    loaded = []
    for one in sets:
        if isinstance(one, KnownSet):
            samples, source = load_known(one, data=data, offline=offline, progress=progress)
        else:
            samples, source = _load_file(one, given), str(one)
        loaded.append(_loaded(_name(one), choose(samples, limit, seed), source))
    _refuse_same_rows(loaded)
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


def _refuse_same_names(sets: Iterable[KnownSet | Path]) -> None:
    seen: set[str] = set()
    for one in sets:
        name = _name(one)
        if name in seen:
            raise UsageError(f"Two of the data sets are named {name!r}.", "Leave one out, or rename a file.")
        seen.add(name)


def _refuse_same_rows(loaded: Iterable[LoadedSet]) -> None:
    """A set with both labels is two rows of every table, beside two rows for all sets."""
    taken = {f"all {label}" for label in LABELS}
    for one in loaded:
        rows = [f"{one.name}-{label}" for label in LABELS] if one.has_both_labels else [one.name]
        for row in rows:
            if row in taken:
                raise UsageError(
                    f"The table would have two rows named {row!r}.", f"Rename the file of {one.name!r}."
                )
            taken.add(row)


def _refuse_idle_label(sets: Sequence[KnownSet | Path], label: Label | None) -> None:
    """`--label` is for the user's files; beside one, the known sets keep their own labels."""
    if label is not None and sets and all(isinstance(one, KnownSet) for one in sets):
        raise UsageError(
            f"--label is for files of your own; {_name(sets[0])} has its own labels.", "Leave --label out."
        )


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
