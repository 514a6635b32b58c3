"""What each known data set is: its rows, licence, files and place on the hub, as sets.yaml states them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from adacd_cli.evaluation.records import Label


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
        """Its page for a browser."""
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
        if self.safe and self.unsafe:
            return None
        return "safe" if self.safe else "unsafe"

    @property
    def source(self) -> str:
        """The hub id, or where else it is published."""
        return self.hub.id if self.hub else self.home


_facts = yaml.safe_load(Path(__file__).with_name("sets.yaml").read_text(encoding="utf-8"))
KNOWN_SETS = TypeAdapter(dict[str, KnownSet]).validate_python(
    {name: {"name": name, **values} for name, values in _facts.items()}
)
"""Every known set by its name, in the order they are listed in."""
