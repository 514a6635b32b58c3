"""`adacd datasets`: lists the known data sets and whether each is available."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Literal

import typer

from adacd_cli.cli.outputs import check_stdout
from adacd_cli.errors import AdacdError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.known import VARIABLE, data_folder, find_file, how_to_get, load_known
from adacd_cli.evaluation.datasets.registry import KNOWN_SETS, KnownSet
from adacd_cli.render.jsonl import escaped
from adacd_cli.render.screen import BOLD, PLAIN, Screen

_TITLES = ("set", "safe", "unsafe", "licence", "status", "source")
_NUMBERS = (1, 2)
_PROSE_WIDTH = 80


@dataclass(frozen=True, slots=True)
class _Listed:
    """A line of the list; its fields are the keys of `--json`.

    Attributes:
        name: as `--dataset` takes it.
        rows, safe, unsafe: of the file where it can be read, else as published.
        licence, source, revision: of the published set; the revision is the hub's commit.
        status: file, hub (can be loaded from there), broken (a file with an error), or missing.
        where: the file.
        problem: what is wrong with the file.
        how: how to get or fix it; None where it is there.
    """

    name: str
    rows: int
    safe: int
    unsafe: int
    licence: str
    source: str
    revision: str | None
    status: Literal["file", "hub", "broken", "missing"]
    where: str | None
    problem: str | None
    how: str | None


def command(
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help=f"Folder with xstest.jsonl, jbb.jsonl, …: id, prompt, label, category (or {VARIABLE}).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a set.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """List the data sets: rows, label, licence, source, whether available."""
    check_stdout()
    folder = data_folder(data)
    listed = [_list(known, folder) for known in KNOWN_SETS.values()]
    if as_json:
        _write_json(listed)
    else:
        _write_table(listed, folder)


def _list(known: KnownSet, folder: Path | None) -> _Listed:
    revision = known.hub.revision if known.hub else None
    counts = (known.rows, known.safe, known.unsafe)
    facts = (known.licence, known.source, revision)
    path = find_file(known, folder)
    if path is not None:
        try:
            samples, _ = load_known(known, data=folder, offline=True, progress=lambda step: None)
        except AdacdError as error:
            return _Listed(known.name, *counts, *facts, "broken", str(path), error.message, error.hint)
        safe = sum(sample.label == "safe" for sample in samples)
        found = (len(samples), safe, len(samples) - safe)
        return _Listed(known.name, *found, *facts, "file", str(path), None, None)
    if known.hub is not None and hub.is_allowed():
        terms = f"Accept its terms at {known.hub.page}, then run `hf auth login`."
        return _Listed(known.name, *counts, *facts, "hub", None, None, terms if known.hub.gated else None)
    return _Listed(known.name, *counts, *facts, "missing", None, None, how_to_get(known, data=folder))


def _write_json(listed: Iterable[_Listed]) -> None:
    for one in listed:
        sys.stdout.write(escaped(json.dumps(asdict(one), ensure_ascii=False)) + "\n")


def _write_table(listed: Sequence[_Listed], folder: Path | None) -> None:
    screen = Screen(sys.stdout)
    rows = [_TITLES, *map(_cells, listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for place in _NUMBERS:
            cells[place] = row[place].rjust(widths[place])
        screen.put_line(("  ".join(cells), BOLD if row is _TITLES else PLAIN))
    width = min(screen.width, _PROSE_WIDTH)
    for note in _notes(listed, folder):
        screen.put_line()
        for line in wrap(note, width, break_long_words=False, break_on_hyphens=False):
            screen.put_line(line)


def _cells(one: _Listed) -> tuple[str, ...]:
    safe, unsafe = (f"{count:,}" if count else "–" for count in (one.safe, one.unsafe))
    return one.name, safe, unsafe, one.licence, one.status, one.source


def _notes(listed: Sequence[_Listed], folder: Path | None) -> Iterator[str]:
    """What the table has no room for: the files, and how to get or fix the others."""
    files = dict.fromkeys(Path(one.where).name for one in listed if one.where and one.status == "file")
    if files:
        yield f"file: in {folder} as {', '.join(files)}."
    for one in listed:
        published = KNOWN_SETS[one.name].rows
        if one.rows != published:
            yield f"{one.name}: published with {published:,} rows; the file has {one.rows:,}."
        if one.problem is not None:
            yield f"{one.name}: {one.problem} {one.how}"
    if any(one.status == "hub" for one in listed):
        yield "hub: loaded from the hub when a set is first used."
    for one in listed:
        if one.status == "hub" and one.how is not None:
            yield f"{one.name}: {one.how}"
    lacking = [KNOWN_SETS[one.name] for one in listed if one.status == "missing"]
    on_hub = [known for known in lacking if known.hub is not None]
    if on_hub:
        yield f"{', '.join(known.name for known in on_hub)}: {how_to_get(*on_hub, data=folder)}"
    for known in lacking:
        if known.hub is None:
            yield f"{known.name}: {how_to_get(known, data=folder)}"
