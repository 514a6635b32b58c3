"""A known set → its samples, from the folder of `--data` or ADACD_DATA, or else from the hub; or how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from adacd_cli.errors import EnvironmentFault, MissingExtraError, UsageError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.files import read_rows
from adacd_cli.evaluation.datasets.registry import KnownSet
from adacd_cli.evaluation.datasets.rows import to_samples
from adacd_cli.evaluation.records import Sample

VARIABLE = "ADACD_DATA"
"""Names the folder of the known sets; `--data` wins over it."""

INSTALL = "pip install 'adacd[datasets]'"


def data_folder(flag: str | None) -> Path | None:
    """The folder that the flag names, else the variable; None where neither does.

    Raises:
        UsageError: there is no such folder.
    """
    given = os.environ.get(VARIABLE) or None if flag is None else flag
    folder = None if given is None else Path(given).expanduser()
    check_folder(folder, VARIABLE if flag is None else "--data")
    return folder


def check_folder(folder: Path | None, where: str = "--data") -> None:
    """Refuses what is no folder.

    Raises:
        UsageError: it is not there, or is a file.
    """
    if folder is None or folder.is_dir():
        return
    what = "is a file" if folder.exists() else "does not exist"
    raise UsageError(
        f"The data folder {folder} {what} (from {where}).",
        "Name a folder that holds xstest.jsonl and the like; `adacd datasets` lists the sets.",
    )


def find_file(known: KnownSet, folder: Path | None) -> Path | None:
    """The set's file in the folder, if it is there."""
    paths = [folder / file for file in known.files] if folder else []
    return next((path for path in paths if path.exists()), None)


def load_known(
    known: KnownSet, *, data: Path | None, offline: bool, progress: Callable[[str], None]
) -> tuple[tuple[Sample, ...], str]:
    """All samples of a known set, and their source: the file's path, or `owner/name@commit` on the hub.

    Args:
        offline: never ask the hub; nor is it asked under HF_HUB_OFFLINE.

    Raises:
        UsageError: its file is not as it should be.
        EnvironmentFault: it is not available; the hint says how to get it.
    """
    path = find_file(known, data)
    if path is not None:
        rows, source = read_rows(path), str(path)
    else:
        place = known.hub
        if place is None or offline or not hub.is_allowed():
            raise _unavailable(known, data, offline)
        rows, source = hub.fetch(known, place, progress), f"{place.id}@{place.revision}"
    prefix = known.number_prefix or f"{known.name}-"
    samples = to_samples(
        rows,
        dataset=known.name,
        source=source,
        label=known.label if known.only is None else None,
        number=lambda index: f"{prefix}{index}",
    )
    kept = tuple(sample for sample in samples if known.only in (None, sample.label))
    if not kept:
        raise UsageError(f"{source} has no {known.only} prompt.", f"{known.name} consists of those.")
    return kept, source


def how_to_get(*lacking: KnownSet, data: Path | None) -> str:
    """How a user can get these sets, one sentence.

    Args:
        lacking: sets that are all on the hub, or one that is not.
    """
    into = f"into {data}" if data else "into a folder and name that with --data"
    if lacking[0].hub is None:
        return f"Put data/OKTest.csv of {lacking[0].home} {into}."
    files = ", ".join(dict.fromkeys(known.files[0] for known in lacking))
    if not hub.is_installed():
        them = "them" if len(lacking) > 1 else "it"
        return f"Run `{INSTALL}` to load {them} from the hub, or put {files} {into}."
    return f"Put {files} {into}, or run without --offline and HF_HUB_OFFLINE."


def _unavailable(known: KnownSet, data: Path | None, offline: bool) -> EnvironmentFault:
    lacking = f"{known.name} is not in {data}" if data else f"{known.name} is not on this machine"
    remedy = how_to_get(known, data=data)
    if known.hub is None:
        return EnvironmentFault(f"{lacking}, and it is on no hub.", remedy)
    if not offline and not hub.is_installed():
        return MissingExtraError(f"{lacking}, and the package `datasets` is not installed.", remedy)
    return EnvironmentFault(f"{lacking}, and adacd is offline.", remedy)
