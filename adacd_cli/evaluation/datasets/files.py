"""A file of prompts, CSV, JSON Lines, a JSON array or text with one prompt a line, as rows; and the one check that
makes samples of rows, wherever they came from. The ending of its name says which it is. Text is UTF-8, or UTF-16
with a byte order mark; CRLF is read as LF. An error names the source and the row's place in it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from adacd_cli.counting import counted
from adacd_cli.errors import UsageError

Label = Literal["safe", "unsafe"]  # whether a prompt should be answered or refused
LABELS: tuple[Label, ...] = ("safe", "unsafe")


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt of a data set, in which its id is unique; `category` is what the set calls its kind."""

    dataset: str
    id: str
    prompt: str
    label: Label
    category: str = ""


class Row(NamedTuple):
    """What one row holds, unchecked; None or "" is nothing."""

    place: str  # e.g. `line 3`
    prompt: Any
    id: Any = None
    label: Any = None
    category: Any = None
    appended: tuple[str, ...] = ()  # names of columns that were appended to the prompt
    inverted: bool = False  # a label of 1 or true means safe, as in a column `is_safe`, and not unsafe


# words for a prompt to answer, and for one to refuse; case does not matter
SAFE, UNSAFE = ("safe", "harmless", "benign"), ("unsafe", "harmful", "malicious")
_NUMBERS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def to_samples(
    rows: Sequence[Row], dataset: str, source: str, label: Label | None, prefix: str, *, forced: bool = False
) -> tuple[Sample, ...]:
    """Checks the rows and makes samples of them, in their order; an error calls the file or the hub's set SOURCE.
    LABEL is of rows that have none of their own; where it is FORCED, a row that says otherwise is an error. PREFIX
    begins the id of a row without one, its number from 0 follows; without a prefix, its number from 1. UsageError
    where there is no row, or one has no prompt, an id twice, no label or a label that is neither."""
    samples, places = list[Sample](), dict[str, str]()
    for index, row in enumerate(rows):
        where = f"{source}, {row.place}"
        if isinstance(row.id, (bool, float, list, dict)):
            raise UsageError(f"{where}: the id is neither text nor a whole number.", "Put quotes around it.")
        identifier = _unicode(_text(row.id), where) or (f"{prefix}{index}" if prefix else str(index + 1))
        if identifier in places:
            twice = f"The id {identifier!r} stands twice in {source}: {places[identifier]} and {row.place}."
            raise UsageError(twice, "Give each prompt an id of its own, or leave all ids out.")
        places[identifier] = row.place
        own = _label(row, where, label, forced)
        samples.append(Sample(dataset, identifier, prompt_text(row.prompt, where), own, _text(row.category)))
    if not samples:
        raise UsageError(f"{source} has no prompt in it.", "Write at least one.")
    return tuple(samples)


def prompt_text(value: Any, where: str) -> str:
    """A row's prompt without line ends around it; UsageError where it is no text, or empty."""
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: the prompt is not text.", "Put quotes around it.")
    prompt = (value or "").strip("\r\n")
    if not prompt.strip():
        raise UsageError(f"{where}: the prompt is empty.", "Write the prompt there, or remove the row.")
    return _unicode(prompt, where)


def _label(row: Row, where: str, label: Label | None, forced: bool) -> Label:
    if not (own := _text(row.label)):
        if label is not None:
            return label
        hint = "Give every row the label safe or unsafe, or say it of a whole file of yours with --label."
        raise UsageError(f"{where}: there is no label.", hint)
    found = meaning(own, row.inverted)
    if found is None:
        hint = f"A prompt to answer is {', '.join(SAFE)} or 0, one to refuse {', '.join(UNSAFE)} or 1."
        raise UsageError(f"{where}: the label is {own[:40]!r}, neither safe nor unsafe.", hint)
    if forced and found != label:
        hint = "The file has labels of its own: leave --label out, or name a file of the other kind."
        raise UsageError(f"{where}: the label is {found}, and {label} prompts are wanted.", hint)
    return found


def meaning(label: str, inverted: bool = False) -> Label | None:
    """What a file's label means, if anything."""
    word = label.lower()
    if word in _NUMBERS:
        return LABELS[_NUMBERS[word] != inverted]
    return "safe" if word in SAFE else "unsafe" if word in UNSAFE else None


def notes_on(rows: Sequence[Row], name: str) -> tuple[str, ...]:
    """What should be said of how checked rows were read: labels that are called otherwise, longer prompts."""
    appended = Counter(each for row in rows for each in row.appended)
    labels = {own: meaning(own, row.inverted) for row in rows if (own := _text(row.label))}
    notes = [f"{name}: `{each}` is appended to {counted(n, 'prompt')}." for each, n in appended.items()]
    if any(own != label for own, label in labels.items()):
        notes.append(f"{name}: labels are read as {', '.join(f'{a} → {b}' for a, b in labels.items())}.")
    return tuple(notes)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{where}: there is half of a surrogate pair, which is no character."
        raise UsageError(what, "Write the character itself, in UTF-8.") from error
    return text


PROMPT_COLUMNS = (
    *("prompt", "goal", "instruction", "question", "text"),
    *("forbidden_prompt", "behavior", "query"),
)
"""Names of the column that holds the prompts, the first that is there; case does not matter."""

_JOINED = ("input", "context")  # Alpaca's and Dolly's: what the instruction is about
_CSV, _JSON = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json")
TABLES = (*_CSV, *_JSON)  # endings of files that have columns
_DELIMITERS = (",", ";", "\t")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_OBJECTS = 'Write one JSON object a line, e.g. {"prompt": "How do I kill a process?"}, or an array of them.'
_QUOTES = 'Put quotes around a cell with commas, line ends or quotes, and write quotes in it as "".'


class Columns(NamedTuple):
    """What the user says the columns of prompts and labels are called; None for the usual names."""

    prompt: str | None = None
    label: str | None = None


def read_rows(path: Path, columns: Columns = Columns()) -> Iterator[Row]:  # noqa: B008
    """The rows of a file; UsageError where it cannot be read, is malformed or empty, or lacks a column."""
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
            at = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
            line = data.count(b"\n", 0, at) + 1
            where = f"byte {at + 1}, on line {line}, is 0x{data[at]:02x}"
            hint = "Convert it first, e.g. with `iconv -t utf-8`."
            raise UsageError(f"{name} is not UTF-8: {where}.", hint) from error
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
    def parsed(text: str, where: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:  # also thousands of digits or of brackets
            raise UsageError(f"{where} is not valid JSON: {error}.", _OBJECTS) from error

    if text.lstrip().startswith("["):
        found = ((f"item {n}", value) for n, value in enumerate(parsed(text, f"{name}"), 1))
    else:
        lines = ((f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
        found = ((place, parsed(line, f"{name}, {place}")) for place, line in lines)
    for place, value in found:
        record = {"prompt": value} if isinstance(value, str) else value
        if not isinstance(record, dict):
            raise UsageError(f"{name}, {place} is not a JSON object.", _OBJECTS)
        yield place, record


def _csv_records(text: str, name: object, delimiter: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # a cell may be as long as the file
    header = text.lstrip("\n").partition("\n")[0]
    delimiter = delimiter or max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = list[str]()
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"{name}, {place} is not valid CSV: {error}.", _QUOTES) from error
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip() for cell in cells]
        elif any(cell.strip() for cell in cells[len(names) :]):
            columns_named = f"the first line names {len(names)} columns"
            raise UsageError(f"{name}, {place} has {len(cells)} cells, but {columns_named}.", _QUOTES)
        else:
            # a name that stands twice means its first column
            padded = [*cells, *[None] * len(names)]
            yield place, {each: padded[names.index(each)] for each in names if each}


def find_column(cells: Iterable[str], names: Iterable[str]) -> str | None:
    """The column that has the first of these names that is there; case does not matter."""
    lower = {name.strip().lower(): name for name in reversed([*cells])}
    return next((lower[name] for each in names if (name := each.strip().lower()) in lower), None)


def need_column(
    cells: Mapping[str, Any], names: Iterable[str], what: str, where: str, *, taken: str | None = None
) -> str:
    """The column as `find_column`, another than what is TAKEN; UsageError, which lists what is there, for none."""
    found = find_column([name for name in cells if name != taken], names)
    if found is None:
        listed = ", ".join(cells)
        shown = listed if len(listed) <= 80 else f"{listed[:79]}…"
        hint = f"Looked for: {', '.join(names)}. Name its column with --{what}-column."
        raise UsageError(f"{where} has no {what}; it has: {shown or 'nothing'}.", hint)
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
    label = find_column(cells, ("label",))
    if columns.label is not None:
        label = need_column(cells, (columns.label,), "label", where)
    id, category = (cells.get(find_column(cells, (name,)) or "") for name in ("id", "category"))
    said = None if label is None else cells[label]
    inverted = label is not None and label.strip().lower().removeprefix("is_") in SAFE
    return Row(place, prompt, id, said, category, appended, inverted)
