"""The known data sets, as sets.yaml states them, and their rows from the hub, through the package `datasets`, an
extra. All network traffic for data sets happens here. The hub is asked first whether it has the set's commit, so
that one out of reach is noticed in seconds; what this machine has of the set already is used then."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from adacd_cli.errors import EnvironmentFault, first_line
from adacd_cli.evaluation.datasets.files import Label, Row


class _Facts(BaseModel, frozen=True, extra="forbid"):
    """What sets.yaml states, checked."""


class Split(_Facts):
    """A split of a set on the hub."""

    name: str  # as `load_dataset(split=…)` takes it
    id_prefix: str  # what the ids of its samples begin with; a number follows
    label: Label | None = None  # of all its rows; None where the rows say it


class Hub(_Facts):
    """Where a set lies on the hub, and which columns hold what."""

    id: str  # `owner/name`
    revision: str  # the commit whose columns these are
    splits: tuple[Split, ...]  # in the order of the samples
    config: str | None = None  # as `load_dataset(name=…)` takes it; None for the only or the default one
    prompt: str = "prompt"
    id_column: str | None = None  # None where the rows are numbered from 0
    category: str | None = None  # None where there is no such column
    label: str | None = None  # None where split or category say it
    unsafe_categories: frozenset[str] = frozenset()  # all others are safe
    one_category: str = ""  # of every row where there is no column
    gated: bool = False  # whether its terms must be accepted on its page first

    @property
    def page(self) -> str:
        return f"https://huggingface.co/datasets/{self.id}"


class KnownSet(_Facts):
    """A set that has a name."""

    name: str  # as `--dataset` takes it
    safe: int = 0  # rows of each label as published
    unsafe: int = 0
    licence: str
    files: tuple[str, ...]  # names it may have in the folder of `--data`, the best first
    hub: Hub | None = None
    home: str = ""  # where it is published, for a set that is on no hub
    only: Label | None = None  # the label that is kept of what is read; None for all
    number_prefix: str = ""  # what ids begin with where a file has none

    @property
    def label(self) -> Label | None:
        """The label of every row, or None where there are both."""
        only: Label = "safe" if self.safe else "unsafe"
        return None if self.safe and self.unsafe else only

    @property
    def source(self) -> str:
        """The hub id, or where else it is published."""
        return self.hub.id if self.hub else self.home


_facts = yaml.safe_load(Path(__file__).with_name("sets.yaml").read_text(encoding="utf-8"))
KNOWN_SETS = {str(name): KnownSet(name=name, **values) for name, values in _facts.items()}
REPLY_SECONDS = 10.0  # for the hub to answer whether it has the set
_COMMIT = re.compile("[0-9a-f]{40}")
_REMEDY = "Try again later, or put {file} into a folder and name that with --data."


def is_installed() -> bool:
    """Whether the package `datasets` is here, without importing it."""
    if "datasets" in sys.modules:
        return sys.modules["datasets"] is not None
    spec = find_spec("datasets")
    return spec is not None and spec.origin is not None  # a mere folder of that name has no origin


def is_allowed() -> bool:
    """Whether sets can be loaded: the package is here, and HF_HUB_OFFLINE does not forbid the hub."""
    from huggingface_hub import constants

    return is_installed() and not constants.HF_HUB_OFFLINE


def fetch(known: KnownSet, hub: Hub) -> Iterator[Row]:
    """The rows of a set, split after split, downloaded where this machine lacks them. EnvironmentFault where the
    hub does not give it, or it has not the columns that are known of it."""
    if Path(hub.id).exists():  # `load_dataset` would read that instead
        what = f"{hub.id} is also a file or folder here, which would be read in the place of {known.name}."
        raise EnvironmentFault(what, "Run adacd in another folder.")
    reachable = _ask(known, hub)
    for split in hub.splits:
        try:
            with _quiet(cached_only=not reachable) as datasets:
                wanted = {"name": hub.config, "split": split.name, "revision": hub.revision}
                table = datasets.load_dataset(hub.id, **wanted)
        except Exception as error:  # the package lets through whatever the libraries below it raise
            raise _failed(known, hub, error, reachable) from error
        _check(known, hub, split, table)
        for index, row in enumerate(table):
            category = hub.one_category if hub.category is None else row[hub.category]
            by_category = "unsafe" if category in hub.unsafe_categories else "safe"
            label = split.label or (by_category if hub.label is None else row[hub.label])
            number = index if hub.id_column is None else row[hub.id_column]
            yield Row(f"row {index + 1}", row[hub.prompt], f"{split.id_prefix}{number}", label, category)


def _ask(known: KnownSet, hub: Hub) -> bool:
    """Whether the hub can be reached; one that refuses is an error at once."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    from adacd_cli.loading.progress import muted

    try:
        with muted("huggingface_hub"):
            HfApi().dataset_info(hub.id, revision=hub.revision, timeout=REPLY_SECONDS)
    except HfHubHTTPError as error:
        raise _failed(known, hub, error, True) from error
    except Exception:  # no network, no such host, a connection that is refused or silent
        return False
    return True


def _failed(known: KnownSet, hub: Hub, error: Exception, reachable: bool) -> EnvironmentFault:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    reason = first_line(error).rstrip(".")
    remedy = _REMEDY.format(file=known.files[0])
    if not reachable:
        what = f"{known.name} is not on this machine, and the hub cannot be reached"
    elif isinstance(error, GatedRepoError) or "gated" in reason:
        what = f"{known.name} is gated, and this machine has no access to it"
        remedy = f"Accept its terms at {hub.page}, then run `hf auth login` or set HF_TOKEN."
    elif isinstance(error, RevisionNotFoundError):
        what = f"The hub's {hub.id} has no commit {hub.revision[:7]} any more"
    elif isinstance(error, RepositoryNotFoundError):
        what = f"The hub has no {hub.id} any more"
    else:
        what = f"{known.name} could not be loaded from the hub: {reason}"
    return EnvironmentFault(f"{what}.", remedy)


@contextmanager
def _quiet(*, cached_only: bool) -> Iterator[Any]:
    """The package `datasets` without its bars and log lines, and at wish without the network."""
    from huggingface_hub import constants

    from adacd_cli.loading.progress import muted

    datasets: Any = import_module("datasets")  # it has no types
    offline = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    bars_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    if cached_only:  # both packages ask these at each request; without it they try for half a minute
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        with muted("datasets", "huggingface_hub", "fsspec", "filelock"):
            yield datasets
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = offline
        if bars_shown:
            datasets.enable_progress_bars()


def _check(known: KnownSet, hub: Hub, split: Split, table: Any) -> None:
    """Refuses another commit than the set's, which `load_dataset` takes where it cannot ask for the right one, and
    a table without the columns that are known of it."""
    remedy = _REMEDY.format(file=known.files[0])
    for commit in {Path(file["filename"]).parent.name for file in table.cache_files} - {hub.revision}:
        if _COMMIT.fullmatch(commit):
            here = f"{known.name} is on this machine as commit {commit[:7]}, not {hub.revision[:7]}"
            raise EnvironmentFault(f"{here}, and the hub cannot be reached.", remedy)
    for column in (hub.prompt, hub.id_column, hub.category, hub.label):
        if column is not None and column not in table.column_names:
            where, there = f"The hub's {hub.id}, split {split.name}", ", ".join(table.column_names)
            raise EnvironmentFault(f"{where}, has no column {column!r}; it has: {there}.", remedy)
