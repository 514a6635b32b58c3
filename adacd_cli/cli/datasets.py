"""`adacd datasets`: lists the known data sets and whether each is available."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from adacd_cli.cli.options import DEBUG, option, switch
from adacd_cli.cli.streams import check_stdout
from adacd_cli.errors import AdacdError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS, KnownSet
from adacd_cli.evaluation.datasets.load import VARIABLE, data_folder, find_file, how_to_get, load_known
from adacd_cli.render.screen import BOLD, PLAIN, Screen
from adacd_cli.render.text import escaped

_TITLES = ("set", "safe", "unsafe", "licence", "status", "source")
_NUMBERS = ("safe", "unsafe")
_PROSE_WIDTH = 80
_DATA = f"Folder with xstest.jsonl, jbb.jsonl, …: id, prompt, label, category (or {VARIABLE})."

Listed = dict[str, Any]
"""A line of the list, with the keys of `--json`: name; rows, safe and unsafe of the file where it can be read,
else as published; licence, source and revision (the hub's commit); status (file, hub: can be loaded from there,
broken: a file with an error, or missing); where, the file; problem, of the file; how to get or fix it."""


def command(
    data: str | None = option("DIR", _DATA),
    as_json: bool = switch("One JSON object a set.", "--json"),
    debug: bool = DEBUG,
) -> None:
    """List the data sets: rows, label, licence, source, whether available."""
    check_stdout()
    folder = data_folder(data)
    listed = [_list(known, folder) for known in KNOWN_SETS.values()]
    if as_json:
        for one in listed:
            sys.stdout.write(escaped(json.dumps(one, ensure_ascii=False)) + "\n")
    else:
        _write_table(listed, folder)


def _list(known: KnownSet, folder: Path | None) -> Listed:
    path, safe, unsafe = find_file(known, folder), known.safe, known.unsafe
    status, problem, how = "missing", None, None
    if path is not None:
        try:
            samples, *_ = load_known(known, data=folder, offline=True, progress=lambda step: None)
            safe = sum(sample.label == "safe" for sample in samples)
            unsafe, status = len(samples) - safe, "file"
        except AdacdError as error:
            status, problem, how = "broken", error.message, error.hint
    elif known.hub is not None and hub.is_allowed():
        status = "hub"
        if known.hub.gated:
            how = f"Accept its terms at {known.hub.page}, then run `hf auth login`."
    else:
        how = how_to_get(known, data=folder)
    return {
        "name": known.name,
        "rows": safe + unsafe,
        "safe": safe,
        "unsafe": unsafe,
        "licence": known.licence,
        "source": known.source,
        "revision": known.hub.revision if known.hub else None,
        "status": status,
        "where": None if path is None else str(path),
        "problem": problem,
        "how": how,
    }


def _write_table(listed: Sequence[Listed], folder: Path | None) -> None:
    screen = Screen(sys.stdout)
    rows = [_TITLES]
    for one in listed:
        safe, unsafe = (f"{one[label]:,}" if one[label] else "–" for label in _NUMBERS)
        rows.append((one["name"], safe, unsafe, one["licence"], one["status"], one["source"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(
        f"{{:{'>' if title in _NUMBERS else ''}{width}}}"
        for title, width in zip(_TITLES, widths, strict=True)
    )
    for row in rows:
        screen.put_line((form.format(*row), BOLD if row is _TITLES else PLAIN))
    for note in _notes(listed, folder):
        screen.put_line()
        width = min(screen.width, _PROSE_WIDTH)
        for line in wrap(note, width, break_long_words=False, break_on_hyphens=False):
            screen.put_line(line)


def _notes(listed: Sequence[Listed], folder: Path | None) -> Iterator[str]:
    """What the table has no room for: the files, and how to get or fix the others."""
    files = dict.fromkeys(Path(one["where"]).name for one in listed if one["status"] == "file")
    if files:
        yield f"file: in {folder} as {', '.join(files)}."
    for one in listed:
        published = KNOWN_SETS[one["name"]].safe + KNOWN_SETS[one["name"]].unsafe
        if one["rows"] != published:
            yield f"{one['name']}: published with {published:,} rows; the file has {one['rows']:,}."
        if one["problem"] is not None:
            yield f"{one['name']}: {one['problem']} {one['how']}"
    if any(one["status"] == "hub" for one in listed):
        yield "hub: loaded from the hub when a set is first used."
    for one in listed:
        if one["status"] == "hub" and one["how"] is not None:
            yield f"{one['name']}: {one['how']}"
    lacking = [KNOWN_SETS[one["name"]] for one in listed if one["status"] == "missing"]
    on_hub = [known for known in lacking if known.hub is not None]
    for some in [on_hub, *([known] for known in lacking if known.hub is None)]:
        if some:
            yield f"{', '.join(known.name for known in some)}: {how_to_get(*some, data=folder)}"
