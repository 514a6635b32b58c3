"""A known set -> its samples, from the folder of `--data` or else from the hub; or how to get it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adacd_cli.errors import EnvironmentFault, MissingExtraError, UsageError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.files import read_rows
from adacd_cli.evaluation.datasets.folder import find_file
from adacd_cli.evaluation.datasets.registry import KnownSet
from adacd_cli.evaluation.datasets.rows import to_samples
from adacd_cli.evaluation.records import Sample

INSTALL = "pip install 'adacd[datasets]'"


def load_known(
    known: KnownSet, *, data: Path | None, offline: bool, progress: Callable[[str], None]
) -> tuple[tuple[Sample, ...], str]:
    """All samples of a known set, and their source: the file's path, or `owner/name@commit` on the hub.

    Args:
        known: the set.
        data: the folder that is looked in first.
        offline: never ask the hub; nor is it asked under HF_HUB_OFFLINE.
        progress: told what takes its time.

    Raises:
        UsageError: its file is not as it should be.
        EnvironmentFault: it cannot be had; the hint says how to get it.
    """
    path = find_file(known, data)
    if path is not None:
        rows, source = read_rows(path), str(path)
    else:
        place = known.hub
        if place is None or offline or not hub.is_allowed():
            raise _not_to_be_had(known, data, offline)
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
        raise UsageError(f"{source} has no {known.only} prompt in it.", f"{known.name} is made of those.")
    return kept, source


def how_to_get(*lacking: KnownSet, data: Path | None) -> str:
    """What a user can do who has not got these sets, one sentence.

    Args:
        lacking: sets that are all on the hub, or one that is not.
        data: the folder of the known sets, if there is one.
    """
    into = f"into {data}" if data else "into a folder and name that with --data"
    if lacking[0].hub is None:
        return f"Put data/OKTest.csv of {lacking[0].home} {into}."
    files = ", ".join(dict.fromkeys(known.files[0] for known in lacking))
    if not hub.is_installed():
        them = "them" if len(lacking) > 1 else "it"
        return f"Run `{INSTALL}` to load {them} from the hub, or put {files} {into}."
    return f"Put {files} {into}, or run without --offline and HF_HUB_OFFLINE."


def _not_to_be_had(known: KnownSet, data: Path | None, offline: bool) -> EnvironmentFault:
    lacking = f"{known.name} is not in {data}" if data else f"{known.name} is not on this machine"
    remedy = how_to_get(known, data=data)
    if known.hub is None:
        return EnvironmentFault(f"{lacking}, and it is on no hub.", remedy)
    if not offline and not hub.is_installed():
        return MissingExtraError(f"{lacking}, and the package `datasets` is not installed.", remedy)
    return EnvironmentFault(f"{lacking}, and adacd is offline.", remedy)
