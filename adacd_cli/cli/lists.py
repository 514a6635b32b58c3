"""`adacd datasets`, `profiles` and `config show`: what there is to choose from, and what is chosen."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from adacd_cli.cli.options import DEBUG, option, switch, with_settings
from adacd_cli.cli.streams import check_stdout
from adacd_cli.config import SETTINGS, Resolved
from adacd_cli.errors import AdacdError, OutputError, UsageError
from adacd_cli.evaluation.datasets import hub
from adacd_cli.evaluation.datasets.hub import KNOWN_SETS, KnownSet
from adacd_cli.evaluation.datasets.load import VARIABLE, data_folder, find_file, how_to_get, load_known
from adacd_cli.evaluation.report.tables import table
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

_ACTIONS = ("list", "show", "export", "remove")


def datasets(
    data: str | None = option("DIR", _DATA),
    as_json: bool = switch("One JSON object a set.", "--json"),
    debug: bool = DEBUG,
) -> None:
    """List the data sets: rows, label, licence, source, whether available."""
    check_stdout()
    folder = data_folder(data)
    listed = [_listed(known, folder) for known in KNOWN_SETS.values()]
    if as_json:
        for one in listed:
            sys.stdout.write(escaped(json.dumps(one, ensure_ascii=False)) + "\n")
    else:
        _write_table(listed, folder)


def _listed(known: KnownSet, folder: Path | None) -> Listed:
    path, safe, unsafe = find_file(known, folder), known.safe, known.unsafe
    status, problem, how = "missing", None, None
    if path is not None:
        try:
            samples, *_ = load_known(known, data=folder, offline=True)
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


def profiles(
    action: Annotated[str, typer.Argument(help="list, show, export or remove.", show_default=False)] = "list",
    name: Annotated[str | None, typer.Argument(help="Which profile.", show_default=False)] = None,
    output: str | None = option("FILE", "With export: the file.", "--output", "-o"),
    as_json: bool = switch("With list and show: JSON.", "--json"),
    debug: bool = DEBUG,
) -> None:
    """List the profiles; show, export or remove one."""
    from adacd_cli.profiles import store
    from adacd_cli.profiles.store import read

    check_stdout()
    if action not in _ACTIONS:
        raise UsageError(f"`adacd profiles` has no {action!r}.", f"Use one of {', '.join(_ACTIONS)}.")
    if (name is None) != (action == "list"):
        what = "takes no name" if name else "needs the name of a profile"
        raise UsageError(f"`adacd profiles {action}` {what}.", "`adacd profiles` lists them.")
    if name is None:
        rows = []
        for kind, paths in (("yours", store.saved()), ("bundled", store.bundled())):
            for path in paths:
                row = {"name": path.stem, "model": "", "kind": kind, "date": "", "used": ""}
                try:
                    profile = read(path)
                    used = "by itself" if profile.automatic else "when named"
                    row |= {"model": profile.model, "date": profile.date, "used": used}
                except AdacdError as error:
                    row["used"] = error.message
                rows.append(row)
        if as_json:
            sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        elif rows:
            sys.stdout.write(table(list(rows[0]), [list(row.values()) for row in rows]) + "\n")
    elif action == "show":
        profile = read(store.file_of(name))
        text = json.dumps(profile.model_dump(mode="json", by_alias=True), ensure_ascii=False) + "\n"
        sys.stdout.write(text if as_json else profile.text())
    elif action == "export":
        path = store.file_of(name)
        target = Path(output or path.name).expanduser()
        if target.exists():
            raise UsageError(f"{target} is there already.", "Name another file with --output.")
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}.") from error
        sys.stdout.write(f"{target}\n")
    else:
        sys.stdout.write(f"Removed {store.remove(name)}\n")


@with_settings()
def config(resolved: Resolved, as_json: bool = switch("One JSON object.", "--json")) -> None:
    """Show every setting, its value, and the flag, variable, file or default it came from."""
    values = resolved.settings.model_dump(mode="json")
    if as_json:
        rows = {
            name: {"value": values[name], "source": source.kind, "where": source.where}
            for name, source in resolved.sources.items()
        }
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    shown = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    name_width = max(map(len, SETTINGS))
    # a longer value pushes its own source to the right instead of every other one
    value_width = max(len(value) for value in shown.values() if len(value) <= 40)
    for name, source in resolved.sources.items():
        typer.echo(f"{name:<{name_width}}  {shown[name]:<{value_width}}  {source.where or source.kind}")
