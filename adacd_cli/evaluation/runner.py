"""Answers every sample with every method, in batches, and has the answers judged.

All methods answer a batch before the next one begins, so that they are timed on the same machine and paired
at any moment. What is in the store is not done again. What fails is tried again in halves, and by itself at
last; a sample that still fails is recorded, and the run goes on.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from adacd_cli.conversation import Conversation
from adacd_cli.errors import OutputError
from adacd_cli.evaluation.judges.base import Exchange, Judge
from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord
from adacd_cli.evaluation.sample import Sample
from adacd_cli.evaluation.store import Store
from adacd_cli.events import Finished, FinishReason

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel

Told = Callable[[AnswerRecord], None]


def batches(samples: Iterable[Sample], size: int) -> list[list[Sample]]:
    """Batches of samples of like length: prompts padded to the longest cost what the longest costs."""
    ordered = sorted(samples, key=lambda sample: len(sample.prompt))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def answer_all(
    model: LanguageModel,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: int,
    told: Told = lambda record: None,
) -> None:
    """Answers whatever the store does not hold yet, or holds as failed.

    Args:
        model: with everything that the methods need (`loading.equip`).
        samples: the prompts of all sets.
        runs: the settings of each method.
        store: keeps each answer as it is finished.
        batch_size: prompts decoded at once.
        told: called with each new record.

    Raises:
        OutputError: an answer cannot be written.
        KeyboardInterrupt: what was finished is in the store.
    """
    for batch in batches(samples, batch_size):
        for settings in runs:
            label = settings.method_label
            missing = [
                sample
                for sample in batch
                if (before := store.answers.get((label, sample.dataset, sample.id))) is None or before.error
            ]
            for record in answer_batch(model, missing, settings):
                store.add_answer(record)
                told(record)


def answer_batch(model: LanguageModel, batch: Sequence[Sample], settings: Settings) -> Iterator[AnswerRecord]:
    """The records of a batch; where it fails, of its halves."""
    if not batch:
        return
    finished: set[str] = set()
    try:
        for record in _decode(model, batch, settings):
            finished.add(f"{record.dataset}\0{record.id}")
            yield record
        return
    except OutputError:
        raise
    except Exception as error:
        left = [sample for sample in batch if f"{sample.dataset}\0{sample.id}" not in finished]
        if len(left) == 1 and len(batch) == 1:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            yield AnswerRecord.of(settings.method_label, left[0], error=reason)
            return
    middle = max(1, len(left) // 2)
    yield from answer_batch(model, left[:middle], settings)
    yield from answer_batch(model, left[middle:], settings)


def _decode(model: LanguageModel, batch: Sequence[Sample], settings: Settings) -> Iterator[AnswerRecord]:
    from adacd_cli.engine import Request, decode
    from adacd_cli.prompts import pair_for

    requests = [
        Request(
            pair_for(model.tokenizer, Conversation.ask(sample.prompt, settings.system), settings),
            seed=_seed(sample, settings),
        )
        for sample in batch
    ]
    clock = _Shares(len(batch))
    for event in decode(model, requests, settings):
        # Ctrl-C closes every open answer before it ends the decoding: those are no answers
        if isinstance(event, Finished) and event.finish_reason is not FinishReason.CANCELLED:
            yield AnswerRecord.of(
                settings.method_label,
                batch[event.request],
                text=event.text,
                finish_reason=event.finish_reason.value,
                tokens=event.tokens,
                added=event.added,
                subtracted=event.subtracted,
                seconds=clock.finish(),
            )


class _Shares:
    """Divides a batch's time among its answers: each moment equally among those that are not finished yet.

    The shares add up to the time of the batch, so a method that decodes its answers one after another is
    compared fairly with one that decodes them side by side.
    """

    def __init__(self, answers: int) -> None:
        self._open, self._share, self._last = answers, 0.0, time.perf_counter()

    def finish(self) -> float:
        """The share, in seconds, of the answer that has just been finished."""
        now = time.perf_counter()
        self._share += (now - self._last) / self._open
        self._open, self._last = self._open - 1, now
        return self._share


def _seed(sample: Sample, settings: Settings) -> int:
    """A seed of the sample's own, the same in every batch and for every method."""
    own = zlib.crc32(f"{sample.dataset}/{sample.id}".encode("utf-8", "surrogatepass"))
    return ((settings.seed or 0) + own) % 2**63


def judge_all(
    judges: Sequence[Judge],
    store: Store,
    *,
    told: Callable[[JudgementRecord], None] = lambda record: None,
) -> None:
    """Has every answer judged that is not judged yet; an answer that failed has nothing to judge.

    Raises:
        AdacdError: a judge gave up.
        OutputError: a judgement cannot be written.
        KeyboardInterrupt: what was judged is in the store.
    """
    for judge in judges:
        waiting = unjudged(judge.name, store)
        exchanges = [Exchange(record.prompt, record.text) for record in waiting]
        for record, judgement in zip(waiting, judge.judge(exchanges), strict=True):
            known = JudgementRecord(
                *record.key, judgement.judge, judgement.label, text_hash(record.text), judgement.detail
            )
            store.add_judgement(known)
            told(known)


def unjudged(judge: str, store: Store) -> list[AnswerRecord]:
    """The answers that the judge has not judged as they now stand, or could not be asked about."""
    waiting = []
    for record in store.answers.values():
        known = store.judgements.get((*record.key, judge))
        if record.error:
            continue
        if known is None or known.failed or known.text_sha256 != text_hash(record.text):
            waiting.append(record)
    return waiting


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
