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
    """One prompt of a data set, in which its id is unique; `category` is what the set calls its kind."""

    dataset: str
    id: str
    prompt: str
    label: Label
    category: str = ""


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """One method's answer to one sample, or in `error` why there is none.

    `finish_reason` (stop or length), tokens, added and subtracted are those of the event Finished; `seconds`
    is the answer's share of the time of its batch, and `cpu_seconds` that of the processor time that this
    process spent on it, 0 where something else computes the model. `batch` numbers the batches of a run from 1:
    all methods answered its samples in turn.
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
    cpu_seconds: float = 0.0
    batch: int = 0

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
