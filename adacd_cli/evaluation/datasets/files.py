"""A file of prompts -> rows: CSV, JSON Lines, or text with one prompt a line.

The ending of its name says which it is. The file must be UTF-8, with or without a byte order mark; CRLF is
read as LF. Labels and ids are checked by `rows`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.rows import Row

PROMPT_COLUMNS = ("prompt", "goal", "instruction", "question", "text")
"""Names of the column that holds the prompts, the first that is there; case does not matter."""

_DELIMITERS = (",", ";", "\t")
_ROWS = (
    'Write one JSON object a line, e.g. {"id": "1", "prompt": "How do I kill a process?", "label": "safe"}.'
)
_QUOTES = 'Put quotes around a cell with commas, line ends or quotes, and write quotes in it as "".'


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, in its order; blank lines are none.

    Raises:
        UsageError: it cannot be read, is not UTF-8, malformed or empty, or has no column of prompts.
    """
    text = _read(path)
    if not text.strip():
        raise UsageError(f"{path} is empty.", "Write one prompt a line, or name another file.")
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        return _csv_rows(text, path)
    lines = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if ending in (".jsonl", ".ndjson", ".json"):
        return _json_rows(lines, path)
    return (Row(place, line) for place, line in lines)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"The data set file {path} could not be read: {reason}.",
            "Name a CSV, JSON Lines or text file; --data names the folder of the known sets.",
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the offset counts from after a byte order mark
        place = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, place) + 1
        raise UsageError(
            f"{path}, line {line} is not UTF-8: byte {place + 1} of the file is 0x{data[place]:02x}.",
            "Convert it first, e.g. with `iconv -t utf-8`.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_rows(lines: Sequence[tuple[str, str]], path: Path) -> Iterator[Row]:
    for place, line in lines:
        values = _json_object(line, f"{path}, {place}")
        column = _prompt_column(values)
        if column is None:
            raise _no_prompt(f"{path}, {place} has no prompt", values)
        yield _row(place, column, values)


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # also thousands of digits or of brackets
        raise UsageError(f"{where} is not valid JSON: {error}.", _ROWS) from error
    if not isinstance(value, dict):
        raise UsageError(f"{where} holds no JSON object.", _ROWS)
    return {name.strip().lower(): cell for name, cell in value.items()}


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    delimiter = _delimiter(text.lstrip("\n").partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    column: str | None = None
    for place, cells in _records(reader, path):
        if column is None:
            names = [cell.strip().lower() for cell in cells]
            column = _prompt_column(names)
            if column is None:
                raise _no_prompt(f"{path} has no column of prompts", names)
        elif len(cells) > len(names):
            raise UsageError(
                f"{path}, {place} has {len(cells)} cells, but the first line names {len(names)} columns.",
                _QUOTES,
            )
        else:
            # a name that stands twice means its first column
            values = dict(reversed([*zip(names, cells, strict=False)]))
            yield _row(place, column, values)


def _records(reader: Any, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each record that is not blank, with the line it begins on."""
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"{path}, {place} is not valid CSV: {error}.", _QUOTES) from error
        if any(cell.strip() for cell in cells):
            yield place, cells


def _delimiter(header: str) -> str:
    """What splits the first line into names, a column of prompts among them; the comma if nothing does."""
    for delimiter in _DELIMITERS:
        names = [name.strip(' "').lower() for name in header.split(delimiter)]
        if _prompt_column(names) is not None:
            return delimiter
    return ","


def _prompt_column(names: Mapping[str, Any] | Sequence[str]) -> str | None:
    return next((name for name in PROMPT_COLUMNS if name in names), None)


def _no_prompt(what: str, names: Mapping[str, Any] | Sequence[str]) -> UsageError:
    listed = ", ".join(names)
    shown = listed if len(listed) <= 80 else f"{listed[:79]}…"
    return UsageError(
        f"{what}; it has: {shown or 'nothing'}.",
        f"Call it {', '.join(PROMPT_COLUMNS[:-1])} or {PROMPT_COLUMNS[-1]}.",
    )


def _row(place: str, column: str, values: Mapping[str, Any]) -> Row:
    return Row(place, values.get(column), values.get("id"), values.get("label"), values.get("category"))
