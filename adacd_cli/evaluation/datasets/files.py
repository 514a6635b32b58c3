"""A file of prompts -> rows: CSV, JSON Lines, a JSON array, or text with one prompt a line.

The ending of its name says which it is. Text is UTF-8, or UTF-16 with a byte order mark; CRLF is read as LF.
Labels and ids are checked by `rows`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.rows import SAFE, Row

PROMPT_COLUMNS = (
    *("prompt", "goal", "instruction", "question", "text", "forbidden_prompt", "behavior", "query"),
)
"""Names of the column that holds the prompts, the first that is there; case does not matter."""

_JOINED = ("input", "context")  # Alpaca's and Dolly's: what the instruction is about
_CSV, _JSON = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json")
TABLES = (*_CSV, *_JSON)
"""Endings of files that have columns."""

_DELIMITERS = (",", ";", "\t")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OBJECTS = 'Write one JSON object a line, e.g. {"prompt": "How do I kill a process?"}, or an array of them.'
_QUOTES = 'Put quotes around a cell with commas, line ends or quotes, and write quotes in it as "".'


class Columns(NamedTuple):
    """What the user says the columns of prompts and labels are called; None for the usual names."""

    prompt: str | None = None
    label: str | None = None


def read_rows(path: Path, columns: Columns = Columns()) -> Iterator[Row]:  # noqa: B008
    """The rows of a file, in its order; UsageError where it cannot be read, is malformed or empty, or lacks a
    column."""
    text, ending = read_text(path), path.suffix.lower()
    if not text.strip():
        raise UsageError(f"{path} is empty.", "Write one prompt a line, or name another file.")
    if ending in TABLES:
        return (_row(f"{path}, ", place, cells, columns) for place, cells in read_table(text, path, ending))
    if any(columns):
        raise UsageError(f"{path} has no columns.", "Only CSV and JSON files have; leave the column out.")
    return (Row(f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def read_text(path: Path) -> str:
    """The text of a file; UsageError where it cannot be read, or is no text."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        what = f"The file {path} could not be read: {getattr(error, 'strerror', None) or error}."
        raise UsageError(what, "Name a CSV, JSON or text file.") from error
    return decode(data, str(path))


def decode(data: bytes, name: str) -> str:
    """Bytes as text with LF line ends and without a byte order mark; UsageError where they are no text."""
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig" and b"\0" not in data:
            # the offset counts from after a byte order mark
            place = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
            line = data.count(b"\n", 0, place) + 1
            raise UsageError(
                f"{name} is not UTF-8: byte {place + 1}, on line {line}, is 0x{data[place]:02x}.",
                "Convert it first, e.g. with `iconv -t utf-8`.",
            ) from error
        text = "\0"
    if "\0" in text:
        hint = "Name a text file in UTF-8, or in UTF-16 with a byte order mark."
        raise UsageError(f"{name} is not text.", hint)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(text: str, name: object, ending: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The place and the cells by column of each record of CSV or JSON; blank lines are none. An error calls the
    source `name`; where the ending of its file says nothing, the first character does."""
    if ending in _JSON or (ending not in _CSV and text.lstrip()[:1] in ("{", "[")):
        return _json_records(text, name)
    return _csv_records(text, name, "\t" if ending == ".tsv" else None)


def _json_records(text: str, name: object) -> Iterator[tuple[str, dict[str, Any]]]:
    if text.lstrip().startswith("["):
        found = ((f"item {n}", value) for n, value in enumerate(_json(text, str(name)), 1))
    else:
        lines = ((f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        found = ((place, _json(line, f"{name}, {place}")) for place, line in lines)
    for place, value in found:
        record = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(record, dict):
            raise UsageError(f"{name}, {place} is not a JSON object.", _OBJECTS)
        yield place, record


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also thousands of digits or of brackets
        raise UsageError(f"{where} is not valid JSON: {error}.", _OBJECTS) from error


def _csv_records(text: str, name: object, delimiter: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # a cell may be as long as the file
    header = text.lstrip("\n").partition("\n")[0]
    delimiter = delimiter or max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names, columns = list[str](), dict[str, int]()
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{name}, {place} is not valid CSV: {error}.", _QUOTES) from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip() for cell in cells]
            # a name that stands twice means its first column
            columns = {each: names.index(each) for each in names if each}
        elif any(cell.strip() for cell in cells[len(names) :]):
            columns_named = f"the first line names {len(names)} columns"
            raise UsageError(f"{name}, {place} has {len(cells)} cells, but {columns_named}.", _QUOTES)
        else:
            yield place, {each: cells[at] if at < len(cells) else None for each, at in columns.items()}


def find_column(cells: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The column that has the first of these names that is there; case does not matter."""
    lower = {name.strip().lower(): name for name in reversed([*cells])}
    return next((lower[name] for each in names if (name := each.strip().lower()) in lower), None)


def need_column(
    cells: Mapping[str, Any], names: Iterable[str], what: str, where: str, *, taken: str | None = None
) -> str:
    """The column as `find_column`, another than what is TAKEN; UsageError, which lists what is there, for none."""
    found = find_column({name: cell for name, cell in cells.items() if name != taken}, names)
    if found is None:
        listed = ", ".join(cells)
        shown = listed if len(listed) <= 80 else f"{listed[:79]}…"
        raise UsageError(
            f"{where} has no {what}; it has: {shown or 'nothing'}.",
            f"Looked for: {', '.join(names)}. Name its column with --{what}-column.",
        )
    return found


def prompt_in(cells: Mapping[str, Any], column: str, where: str) -> tuple[Any, tuple[str, ...]]:
    """The prompt with the `input` or `context` that belongs to it, and the names of what was appended."""
    prompt, appended = cells[column], list[str]()
    for each in _JOINED:
        name = find_column(cells, (each,))
        if name is None or name == column or not (more := cells[name]) or not isinstance(prompt, str):
            continue
        if not isinstance(more, str):
            what = f"{where}: `{name}` belongs to the prompt, and is not text."
            raise UsageError(what, "Write it as text.")
        if more.strip():
            prompt, appended = f"{prompt}\n\n{more}", [*appended, name]
    return prompt, tuple(appended)


def _row(source: str, place: str, cells: Mapping[str, Any], columns: Columns) -> Row:
    where = source + place
    wanted = PROMPT_COLUMNS if columns.prompt is None else (columns.prompt,)
    prompt, appended = prompt_in(cells, need_column(cells, wanted, "prompt", where), where)
    if columns.label is None:
        label = find_column(cells, ("label",))
    else:
        label = need_column(cells, (columns.label,), "label", where)
    id, category = (cells.get(find_column(cells, (name,)) or "") for name in ("id", "category"))
    said = None if label is None else cells[label]
    inverted = label is not None and label.strip().lower().removeprefix("is_") in SAFE
    return Row(place, prompt, id, said, category, appended, inverted)
