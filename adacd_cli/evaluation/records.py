"""The values of a run: a sample, and what is written down of each answer and each judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adacd_cli.evaluation.judges.base import JudgementLabel

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


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One method's answer to one sample.

    Attributes:
        method: the method as it is printed.
        finish_reason: stop or length; "" where it failed.
        tokens, added, subtracted: as in the event Finished.
        seconds: its share of the time of its batch.
        error: why it failed; "" where it did not.
    """

    method: str
    dataset: str
    id: str
    prompt: str
    label: Label
    category: str
    text: str = ""
    finish_reason: str = ""
    tokens: int = 0
    added: int = 0
    subtracted: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Method, data set and id: a later record of the same key replaces an earlier one."""
        return self.method, self.dataset, self.id

    @classmethod
    def of(cls, method: str, sample: Sample, **values: Any) -> AnswerRecord:
        """The record of a sample's answer."""
        return cls(method, sample.dataset, sample.id, sample.prompt, sample.label, sample.category, **values)


@dataclass(frozen=True, slots=True)
class JudgementRecord:
    """A judge's judgement of one answer; `text_sha256` tells whether the answer is still that one."""

    method: str
    dataset: str
    id: str
    judge: str
    label: JudgementLabel
    text_sha256: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Method, data set, id and judge."""
        return self.method, self.dataset, self.id, self.judge

    @property
    def failed(self) -> bool:
        """Whether the judge could not be asked: it may be, another time."""
        return bool(self.detail.get("failed"))
