"""`adacd profiles`: what `adacd fit` found for each model, and what comes with the package."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from adacd_cli.cli.options import DEBUG, option, switch
from adacd_cli.cli.streams import check_stdout
from adacd_cli.errors import AdacdError, OutputError, UsageError
from adacd_cli.evaluation.report.tables import table

_ACTIONS = ("list", "show", "export", "remove")


def command(
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
        _list(as_json=as_json)
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


def _list(*, as_json: bool) -> None:
    from adacd_cli.profiles import store
    from adacd_cli.profiles.store import read

    rows = []
    for kind, paths in (("yours", store.saved()), ("bundled", store.bundled())):
        for path in paths:
            row = {"name": path.stem, "model": "", "kind": kind, "date": "", "used": ""}
            try:
                profile = read(path)
                row |= {"model": profile.model, "date": profile.date}
                row["used"] = "by itself" if profile.automatic else "when named"
            except AdacdError as error:
                row["used"] = error.message
            rows.append(row)
    if as_json:
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif rows:
        sys.stdout.write(table(list(rows[0]), [list(row.values()) for row in rows]) + "\n")
