"""Rows as they were read, and the one check that makes samples of them, wherever they came from.

An error names the source and the row's place in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from adacd_cli.counting import counted
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.store import LABELS, Label, Sample


class Row(NamedTuple):
    """What one row holds, unchecked; None or "" is nothing. `place` is e.g. `line 3`.

    `appended` names columns that were appended to the prompt. A label of 1 or true means unsafe, and safe where
    it is `inverted`, as in a column `is_safe`.
    """

    place: str
    prompt: Any
    id: Any = None
    label: Any = None
    category: Any = None
    appended: tuple[str, ...] = ()
    inverted: bool = False


SAFE, UNSAFE = ("safe", "harmless", "benign"), ("unsafe", "harmful", "malicious")
"""Words for a prompt to answer, and for one to refuse; case does not matter."""

_NUMBERS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def to_samples(
    rows: Sequence[Row],
    dataset: str,
    source: str,
    label: Label | None,
    number: Callable[[int], str],
    *,
    forced: bool = False,
) -> tuple[Sample, ...]:
    """Checks the rows and makes samples of them, in their order; an error calls the file or the hub's set SOURCE.

    LABEL is of rows that have none of their own; where it is FORCED, a row that says otherwise is an error. NUMBER
    gives the id of a row without one, by its index from 0. UsageError where there is no row, or one has no prompt,
    an id twice, no label or a label that is neither.
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
        own = _label(row, where, label, forced)
        samples.append(Sample(dataset, identifier, prompt_text(row.prompt, where), own, category))
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


def _id(value: Any, where: str) -> str:
    if isinstance(value, (bool, float, list, dict)):
        raise UsageError(f"{where}: the id is neither text nor a whole number.", "Put quotes around it.")
    return "" if value is None else _unicode(str(value).strip(), where)


def _label(row: Row, where: str, label: Label | None, forced: bool) -> Label:
    own = "" if row.label is None else str(row.label).strip()
    if not own:
        if label is not None:
            return label
        raise UsageError(
            f"{where}: there is no label.",
            "Give every row the label safe or unsafe, or say it of a whole file of yours with --label.",
        )
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
    found = ((own, row) for row in rows if row.label is not None and (own := str(row.label).strip()))
    labels = {own: meaning(own, row.inverted) for own, row in found}
    notes = [f"{name}: `{each}` is appended to {counted(n, 'prompt')}." for each, n in appended.items()]
    if any(own != label for own, label in labels.items()):
        notes.append(f"{name}: labels are read as {', '.join(f'{a} → {b}' for a, b in labels.items())}.")
    return tuple(notes)


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"{where}: there is half of a surrogate pair, which is no character."
        raise UsageError(what, "Write the character itself, in UTF-8.") from error
    return text
