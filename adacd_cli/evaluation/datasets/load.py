"""Names of data sets → their samples: of known sets or the user's own files, and which `--limit` keeps. A known set
comes from the folder of `--data` or ADACD_DATA, or else from the hub, or it is said how to get it. Nothing is
loaded before every name is understood."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from adacd_cli.errors import EnvironmentFault, MissingExtraError, UsageError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.files import LABELS, Columns, Sample, notes_on, read_rows, to_samples
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS, KnownSet
from adacd_cli.suggest import known_names_hint

VARIABLE = "ADACD_DATA"  # names the folder of the known sets; `--data` wins over it
Samples = tuple[Sample, ...]
INSTALL = "pip install 'adacd[datasets]'"


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """A set as it will be run."""

    name: str  # the known set's, or the stem of the user's file
    samples: Samples  # those that `--limit` left, in the order of the source
    source: str  # path of the file, or `owner/name@commit` on the hub
    sha256: str  # of the samples' ids, prompts and labels, in hexadecimal
    has_both_labels: bool
    notes: tuple[str, ...] = ()


def load_samples(
    names: Sequence[str],
    *,
    data: Path | None,
    label: str | None,
    limit: int | None,
    seed: int,
    offline: bool,
    columns: Columns = Columns(),  # noqa: B008
) -> list[LoadedSet]:
    """Loads each of the named sets: known ones, looked for first in the folder DATA, see `data_folder`, or paths of
    CSV, JSON or text files. LABEL is safe, unsafe or None, of the files that have no labels of their own; LIMIT the
    samples of each set and label, at least 1, or None for all, see `choose`. UsageError where a name, the folder,
    the label or the limit cannot be used, or a file is malformed; EnvironmentFault where a known set is not
    available: the hint says how to get it."""
    own = next((known for known in LABELS if label == known), None)
    if own != label:
        hint = "safe is a prompt to answer, unsafe one to refuse."
        raise UsageError(f"--label is safe or unsafe; got {label!r}.", hint)
    sets = [KNOWN_SETS.get(name) or Path(name).expanduser() for name in names]
    for name, one in zip(names, sets, strict=True):
        if isinstance(one, Path) and not (name and (one.exists() or one.suffix or os.sep in name)):
            hint = f"{known_names_hint(name, KNOWN_SETS)} Or name a CSV, JSON or text file."
            raise UsageError(f"There is no data set and no file named {name!r}.", hint)
    titles = [one.name if isinstance(one, KnownSet) else one.stem for one in sets]
    for title in titles:
        if titles.count(title) > 1:
            raise UsageError(f"Two of the data sets are named {title!r}.", "Leave one out, or rename a file.")
    for flag, value in {"label": own, "prompt-column": columns.prompt, "label-column": columns.label}.items():
        if value is not None and sets and all(isinstance(one, KnownSet) for one in sets):
            what = f"--{flag} is for files of your own; {titles[0]} is a known set."
            raise UsageError(what, f"Leave --{flag} out.")
    loaded, rows_taken = [], {f"all {label}" for label in LABELS}
    for title, one in zip(titles, sets, strict=True):
        if isinstance(one, KnownSet):
            samples, source, notes = load_known(one, data=data, offline=offline)
        else:
            rows, source = [*read_rows(one, columns)], str(one)
            samples = to_samples(rows, title, source, own, "", forced=own is not None)
            notes = notes_on(rows, one.name)
        chosen, digest = choose(samples, limit, seed), sha256()
        for sample in chosen:
            digest.update(json.dumps([sample.id, sample.prompt, sample.label]).encode() + b"\n")
        both = len({sample.label for sample in chosen}) > 1
        for row in [f"{title}-{label}" for label in LABELS] if both else [title]:
            if row in rows_taken:  # a set with both labels is two rows of a table
                hint = f"Rename the file of {title!r}."
                raise UsageError(f"The table would have two rows named {row!r}.", hint)
            rows_taken.add(row)
        loaded.append(LoadedSet(title, chosen, source, digest.hexdigest(), both, notes))
    return loaded


def choose(samples: Sequence[Sample], limit: int | None, seed: int) -> Samples:
    """At most `limit` samples of each label, at least 1, in the order they came in; None for all. The categories
    keep their shares, and which of a category's samples are taken is drawn by the seed. The choice depends on the
    seed, the set and the ids alone, not on the order of the rows or the version of Python, and a larger limit only
    adds to a smaller one's choice."""
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
        n = len(members)
        turns[label] += [((place + 0.5) / n, lot, sample.id) for place, (lot, sample) in enumerate(members)]
    chosen = {id for own in turns.values() for _, _, id in sorted(own)[:limit]}
    return tuple(sample for sample in samples if sample.id in chosen)


def data_folder(flag: str | None) -> Path | None:
    """The folder that the flag names, else the variable; None where neither does. UsageError where it is none."""
    where, given = ("--data", flag) if flag is not None else (VARIABLE, os.environ.get(VARIABLE) or None)
    folder = None if given is None else Path(given).expanduser()
    if folder is not None and not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        hint = "Name a folder that holds xstest.jsonl and the like; `adacd datasets` lists the sets."
        raise UsageError(f"The data folder {folder} {what} (from {where}).", hint)
    return folder


def find_file(known: KnownSet, folder: Path | None) -> Path | None:
    """The set's file in the folder, if it is there."""
    paths = [folder / file for file in known.files] if folder else []
    return next((path for path in paths if path.exists()), None)


def load_known(known: KnownSet, *, data: Path | None, offline: bool) -> tuple[Samples, str, tuple[str, ...]]:
    """All samples of a known set, their source (the file's path, or `owner/name@commit` on the hub), and notes. The
    hub is never asked OFFLINE, nor under HF_HUB_OFFLINE. UsageError where its file is not as it should be;
    EnvironmentFault where it is not available; the hint says how to get it."""
    path = find_file(known, data)
    if path is not None:
        rows, source = [*read_rows(path)], str(path)
    else:
        place = known.hub
        if place is None or offline or not hub.is_allowed():
            lacking = f"{known.name} is not {f'in {data}' if data else 'on this machine'}"
            remedy = how_to_get(known, data=data)
            if place is None:
                raise EnvironmentFault(f"{lacking}, and it is on no hub.", remedy)
            if not offline and not hub.is_installed():
                raise MissingExtraError(f"{lacking}, and the package `datasets` is not installed.", remedy)
            raise EnvironmentFault(f"{lacking}, and adacd is offline.", remedy)
        rows, source = [*hub.fetch(known, place)], f"{place.id}@{place.revision}"
    prefix, label = known.number_prefix or f"{known.name}-", known.label if known.only is None else None
    samples = to_samples(rows, known.name, source, label, prefix)
    kept = tuple(sample for sample in samples if known.only in (None, sample.label))
    if not kept:
        raise UsageError(f"{source} has no {known.only} prompt.", f"{known.name} consists of those.")
    return kept, source, notes_on(rows, known.name)


def how_to_get(*lacking: KnownSet, data: Path | None) -> str:
    """How a user can get these sets, which are all on the hub, or one that is not, in one sentence."""
    into = f"into {data}" if data else "into a folder and name that with --data"
    if lacking[0].hub is None:
        return f"Put data/OKTest.csv of {lacking[0].home} {into}."
    files = ", ".join(dict.fromkeys(known.files[0] for known in lacking))
    if not hub.is_installed():
        them = "them" if len(lacking) > 1 else "it"
        return f"Run `{INSTALL}` to load {them} from the hub, or put {files} {into}."
    return f"Put {files} {into}, or run without --offline and HF_HUB_OFFLINE."
