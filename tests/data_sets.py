"""What the tests of data sets share: loading with the defaults, the error of a refusal, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.errors import AdacdError
from adacd_cli.evaluation.datasets.load import LoadedSet, load_samples


def load(*names: str | Path, **options: Any) -> list[LoadedSet]:
    """`load_samples` offline, with neither folder, label nor limit unless given."""
    given = {"data": None, "label": None, "limit": None, "seed": 0, "offline": True} | options
    return load_samples([str(name) for name in names], **given)


def refusal(*names: str | Path, **options: Any) -> AdacdError:
    """The error that `load` raises."""
    with pytest.raises(AdacdError) as caught:
        load(*names, **options)
    return caught.value


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file as it is given, in UTF-8 where it is text."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows: dict[str, Any]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
