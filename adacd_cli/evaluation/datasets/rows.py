"""Rows as they were read, and the one check that makes samples of them, wherever they came from.

An error names the source and the row's place in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from adacd_cli.errors import UsageError
from adacd_cli.evaluation.records import LABELS, Label, Sample


class Row(NamedTuple):
    """What one row holds, unchecked; None or "" is nothing. `place` is e.g. `line 3`."""

    place: str
    prompt: Any
    id: Any = None
    label: Any = None
    category: Any = None


def to_samples(
    rows: Iterable[Row],
    *,
    dataset: str,
    source: str,
    label: Label | None,
    forced: bool = False,
    number: Callable[[int], str],
) -> tuple[Sample, ...]:
    """Checks the rows and makes samples of them, in their order.

    Args:
        source: what an error calls the file or the hub's set.
        label: of rows that have none of their own.
        forced: the label came from `--label`: a row that says otherwise is an error.
        number: the id of a row without one, by its index from 0.

    Raises:
        UsageError: there is no row, or one has no prompt, an id twice, no label or a label that is neither.
    """
    samples: list[Sample] = []
    places: dict[str, str] = {}
    for index, row in enumerate(rows):
        where = f"{source}, {row.place}"
        identifier = _id(row.id, where) or number(index)
        if identifier in places:
            raise UsageError(
                f"The id {identifier!r} stands twice in {source}: {places[identifier]} and {row.place}.",
                "Give each prompt an id of its own, or leave all ids out.",
            )
        places[identifier] = row.place
        category = "" if row.category is None else str(row.category).strip()
        own = _label(row.label, where, label, forced)
        samples.append(Sample(dataset, identifier, _prompt(row.prompt, where), own, category))
    if not samples:
        raise UsageError(f"{source} has no prompt in it.", "Write at least one.")
    return tuple(samples)


def _prompt(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: the prompt is not text.", "Put quotes around it.")
    prompt = (value or "").strip("\r\n")
    if not prompt.strip():
        raise UsageError(f"{where}: the prompt is empty.", "Write the prompt there, or remove the row.")
    return _unicode(prompt, where)


def _id(value: Any, where: str) -> str:
    if isinstance(value, (bool, float, list, dict)):
        raise UsageError(f"{where}: the id is neither text nor a whole number.", "Put quotes around it.")
    return "" if value is None else _unicode(str(value).strip(), where)


def _label(value: Any, where: str, label: Label | None, forced: bool) -> Label:
    own = value.strip() if isinstance(value, str) else value
    if label is not None and (own in (None, "") or own == label):
        return label
    if own in (None, ""):
        raise UsageError(
            f"{where}: there is no label.",
            "Give every row the label safe or unsafe, or say it of a whole file of yours with --label.",
        )
    found = next((known for known in LABELS if own == known), None)
    if found is None:
        raise UsageError(
            f"{where}: the label is {str(own)[:40]!r}, neither safe nor unsafe.",
            "safe is a prompt to answer, unsafe one to refuse.",
        )
    if forced:
        raise UsageError(
            f"{where}: the label is {found}, and {label} prompts are wanted.",
            "The file has labels of its own: leave --label out, or name a file of the other kind.",
        )
    return found


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{where}: there is half of a surrogate pair, which is no character.",
            "Write the character itself, in UTF-8.",
        ) from error
    return text
