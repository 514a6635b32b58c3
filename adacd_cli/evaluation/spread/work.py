"""What is left of an evaluation, cut into pieces for workers, and how pieces and answers travel: as JSON.

A piece is a batch of samples with every method that has still to answer them, so that the methods are timed
on one machine, as in `runner`. JSON in ASCII, because a prompt may hold what Arrow's strings refuse.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from adacd_cli.evaluation.records import AnswerRecord
from adacd_cli.evaluation.runner import portions
from adacd_cli.evaluation.sample import Sample

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.evaluation.store import Store

Key = tuple[str, str, str]

AUTO = 64
"""Samples of a piece where each worker finds out how many it decodes at once."""

RETRIES = 10
"""How often a piece is given out again after its worker was lost: a piece may itself be what kills them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Work for one worker.

    Attributes:
        samples: of like length.
        asked: for each method, by its place among the runs, the places of the samples it has to answer.
        at_once: how many are decoded at once; "auto" is as many as the worker's memory has room for.
    """

    samples: tuple[Sample, ...]
    asked: tuple[tuple[int, tuple[int, ...]], ...]
    at_once: int | Literal["auto"] = "auto"

    def to_json(self) -> str:
        """The piece as one line of ASCII."""
        return json.dumps(
            {
                "samples": [asdict(sample) for sample in self.samples],
                "asked": self.asked,
                "at_once": self.at_once,
            }
        )

    @classmethod
    def from_json(cls, line: str) -> Piece:
        """The piece that `to_json` wrote."""
        values = json.loads(line)
        return cls(
            tuple(Sample(**sample) for sample in values["samples"]),
            tuple((run, tuple(places)) for run, places in values["asked"]),
            values["at_once"],
        )


def missing(
    samples: Sequence[Sample], runs: Sequence[Settings], store: Store, tried: Collection[Key] = ()
) -> set[Key]:
    """Keys of the answers that the store lacks or holds as failed, without those tried already."""
    return {
        key
        for sample in samples
        for settings in runs
        if (key := (settings.method_label, sample.dataset, sample.id)) not in tried
        and ((before := store.answers.get(key)) is None or before.error)
    }


def pieces(
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    wanted: Collection[Key],
    *,
    batch_size: int | Literal["auto"],
) -> list[Piece]:
    """The wanted answers in pieces of a batch, the longest first: short ones even out the end."""
    size = AUTO if batch_size == "auto" else batch_size
    labels = [settings.method_label for settings in runs]
    cut = []
    for batch in reversed(portions(samples, size)):
        asked = tuple(
            (run, places)
            for run, label in enumerate(labels)
            if (
                places := tuple(
                    place
                    for place, sample in enumerate(batch)
                    if (label, sample.dataset, sample.id) in wanted
                )
            )
        )
        if asked:
            cut.append(Piece(tuple(batch), asked, batch_size))
    return cut


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker sends back: who it is, and answers or why it cannot answer.

    Attributes:
        worker: facts about it, JSON values by name; see `worker`.
        records: answers to the samples of a piece, of one method.
        fault: class, message and hint of the error that keeps the worker from answering; {} where none does.
    """

    worker: dict[str, Any]
    records: tuple[AnswerRecord, ...] = ()
    fault: dict[str, str] | None = None

    def to_json(self) -> str:
        """The result as one line of ASCII."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Result:
        """The result that `to_json` wrote."""
        values = json.loads(line)
        return cls(
            values["worker"], tuple(AnswerRecord(**record) for record in values["records"]), values["fault"]
        )
