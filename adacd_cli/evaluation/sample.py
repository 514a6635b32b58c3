"""One prompt of a data set. Values only; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Label = Literal["safe", "unsafe"]
"""Whether a prompt should be answered (safe) or refused (unsafe)."""

LABELS: tuple[Label, ...] = ("safe", "unsafe")


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt.

    Attributes:
        dataset: name of its data set, e.g. `xstest`, or the stem of the user's file.
        id: its id, unique in the data set.
        prompt: the question as it is asked.
        label: safe or unsafe.
        category: what the set calls its kind; "" where it has none.
    """

    dataset: str
    id: str
    prompt: str
    label: Label
    category: str = ""
