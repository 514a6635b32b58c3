"""What each known data set is: its rows, licence, files and place on the hub, as sets.yaml states them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from adacd_cli.evaluation.records import Label


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Facts):
    """A split of a set on the hub.

    Attributes:
        name: as `load_dataset(split=…)` takes it.
        id_prefix: what the ids of its samples begin with; a number follows.
        label: of all its rows; None where the rows say it.
    """

    name: str
    id_prefix: str
    label: Label | None = None


class Hub(_Facts):
    """Where a set lies on the hub, and which columns hold what.

    Attributes:
        id: `owner/name`.
        revision: the commit whose columns these are.
        splits: in the order of the samples.
        config: as `load_dataset(name=…)` takes it; None for the only or the default one.
        id_column: column of the ids; None where the rows are numbered from 0.
        category: column of the categories; None where there are none.
        label: column of the labels; None where split or category say them.
        unsafe_categories: the categories whose rows are unsafe; all others are safe.
        one_category: the category of every row where there is no column.
        gated: whether its terms must be accepted on its page first.
    """

    id: str
    revision: str
    splits: tuple[Split, ...]
    config: str | None = None
    prompt: str = "prompt"
    id_column: str | None = None
    category: str | None = None
    label: str | None = None
    unsafe_categories: frozenset[str] = frozenset()
    one_category: str = ""
    gated: bool = False

    @property
    def page(self) -> str:
        """Its page for a browser."""
        return f"https://huggingface.co/datasets/{self.id}"


class KnownSet(_Facts):
    """A set that has a name.

    Attributes:
        name: as `--dataset` takes it.
        safe, unsafe: rows of each label as published.
        files: names it may have in the folder of `--data`, the best first.
        hub: its place on the hub, or None.
        home: where it is published, for a set that is on no hub.
        only: the label that is kept of what is read; None for all.
        number_prefix: what ids begin with where a file has none.
    """

    name: str
    safe: int = 0
    unsafe: int = 0
    licence: str
    files: tuple[str, ...]
    hub: Hub | None = None
    home: str = ""
    only: Label | None = None
    number_prefix: str = ""

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


def _read() -> dict[str, KnownSet]:
    facts = yaml.safe_load(Path(__file__).with_name("sets.yaml").read_text(encoding="utf-8"))
    named = {name: {"name": name, **values} for name, values in facts.items()}
    return TypeAdapter(dict[str, KnownSet]).validate_python(named)


KNOWN_SETS = _read()
"""Every known set by its name, in the order they are listed in."""
