"""The folder of `--data` or ADACD_DATA, and which of its files is which known set."""

from __future__ import annotations

import os
from pathlib import Path

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.registry import KnownSet

VARIABLE = "ADACD_DATA"
"""Names the folder of the known sets; `--data` wins over it."""


def data_folder(flag: str | None) -> Path | None:
    """The folder that the flag names, else the variable; None where neither does.

    Raises:
        UsageError: there is no such folder.
    """
    given = os.environ.get(VARIABLE) or None if flag is None else flag
    if given is None:
        return None
    folder = Path(given).expanduser()
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
