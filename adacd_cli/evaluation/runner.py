"""Answers every sample with every method, many at once, and has the answers judged.

All methods answer a portion of similar length before the next portion begins, so that they are timed on the
same machine at the same moment. What is in the store is not done again; a sample that fails is recorded as
failed, and the run goes on.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError, first_line
from adacd_cli.evaluation.judges.base import Exchange, Judge
from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord, Sample
from adacd_cli.evaluation.store import Store
from adacd_cli.events import Finished, FinishReason, TokenStep

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Places, Prefixes, Request

_PORTION = 8
"""How many times as many samples as run at once are answered by one method before the next one's turn."""


class Job(NamedTuple):
    """One sample to answer with one method's settings."""

    sample: Sample
    settings: Settings


def portions(samples: Iterable[Sample], size: int) -> list[list[Sample]]:
    """Portions of samples of similar length: prompts padded to the longest cost what the longest costs."""
    ordered = sorted(samples, key=lambda sample: len(sample.prompt))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def answer_all(
    model: LanguageModel,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: int | Literal["auto"],
    on_record: Callable[[AnswerRecord], None] = lambda record: None,
) -> None:
    """Answers whatever the store does not hold yet, or holds as failed.

    Args:
        model: with everything that the methods need (`loading.equip`).
        samples: the prompts of all sets.
        runs: the settings of each method.
        store: keeps each answer as it is finished.
        batch_size: prompts decoded at once; "auto" is as many as memory has room for.
        on_record: called with each new record.

    Raises:
        OutputError: an answer cannot be written.
        KeyboardInterrupt: what was finished is in the store.
    """
    from adacd_cli.engine import Prefixes

    places = places_for(model, samples, runs, batch_size)
    known = Prefixes(limit=2 * len(runs), renew=False)
    for portion in portions(samples, _PORTION * (places.limit or 1)):
        for settings in runs:
            jobs = [Job(sample, settings) for sample in portion if store.lacks(settings.method_label, sample)]
            for record in answer_records(model, jobs, places=places, known=known):
                store.add_answer(record)
                on_record(record)


def places_for(
    model: LanguageModel,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    batch_size: int | Literal["auto"],
) -> Places:
    """How many samples are decoded at once; "auto" is what memory has room for, by the longest prompt."""
    from adacd_cli.loading import speed

    requests = []
    for settings in runs if samples else ():
        try:
            requests.append(_request(model, Job(max(samples, key=lambda each: len(each.prompt)), settings)))
        except AdacdError:  # a prompt that cannot be rendered is recorded when its turn comes
            continue
    return speed.places_for(model, requests, runs[0], batch_size)


def answer_records(
    model: LanguageModel, jobs: Sequence[Job], *, places: Places | None = None, known: Prefixes | None = None
) -> Iterator[AnswerRecord]:
    """The records that `answer` yields, without the tokens."""
    for _, item in answer(model, jobs, places=places, known=known):
        if isinstance(item, AnswerRecord):
            yield item


def answer(
    model: LanguageModel,
    jobs: Sequence[Job],
    *,
    places: Places | None = None,
    known: Prefixes | None = None,
) -> Iterator[tuple[int, TokenStep | AnswerRecord]]:
    """Each token and, when it ends or fails, the record of each job, with the job's index.

    Args:
        model: with everything that the methods need.
        jobs: what to answer.
        places: how many are decoded at once, lowered where memory is short; None for all.
        known: beginnings of prompts that need not be read again; None for none.
    """
    left = dict(enumerate(jobs))
    try:
        for index, item in _decode(model, jobs, places, known) if jobs else ():
            if isinstance(item, AnswerRecord):
                del left[index]
            yield index, item
        return
    except Exception as error:
        if len(jobs) == 1:
            label = jobs[0].settings.method_label
            yield 0, AnswerRecord.of(label, jobs[0].sample, error=first_line(error))
            return
    # one of them is at fault, and nobody knows which: halves are tried by themselves
    rest = list(left)
    for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
        for index, item in answer(model, [jobs[each] for each in half], places=places, known=known):
            yield half[index], item


def _request(model: LanguageModel, job: Job) -> Request:
    from adacd_cli.engine import Request
    from adacd_cli.prompts import pair_for

    sample, settings = job
    pair = pair_for(model.tokenizer, Conversation.ask(sample.prompt, settings.system), settings)
    # a seed of the sample's own, the same in every batch and for every method
    own = zlib.crc32(f"{sample.dataset}/{sample.id}".encode("utf-8", "surrogatepass"))
    return Request(pair, seed=((settings.seed or 0) + own) % 2**63, settings=settings, top_logprobs=0)


def _decode(
    model: LanguageModel, jobs: Sequence[Job], places: Places | None, known: Prefixes | None
) -> Iterator[tuple[int, TokenStep | AnswerRecord]]:
    """The index of a job with a token of its answer, or with the record of the whole of it."""
    from adacd_cli.engine import decode

    clock = _Shares(len(jobs), places)
    requests = [_request(model, job) for job in jobs]
    for event in decode(model, requests, jobs[0].settings, places=places, known=known):
        if isinstance(event, TokenStep):
            yield event.request, event
        # Ctrl-C closes every open answer before it ends the decoding: those are no answers
        elif isinstance(event, Finished) and event.finish_reason is not FinishReason.CANCELLED:
            sample, settings = jobs[event.request]
            yield (
                event.request,
                AnswerRecord.of(
                    settings.method_label,
                    sample,
                    text=event.text,
                    finish_reason=event.finish_reason.value,
                    tokens=event.tokens,
                    added=event.added,
                    subtracted=event.subtracted,
                    seconds=clock.finish(event.request),
                ),
            )


class _Shares:
    """Divides the time among the answers: each moment equally among those that are being decoded.

    The shares add up to the time of all, so a method that decodes its answers one after another is compared
    fairly with one that decodes them side by side.

    Args:
        answers: how many there are.
        places: how many are decoded at once; they begin in their order.
    """

    def __init__(self, answers: int, places: Places | None) -> None:
        self._open, self._places = dict.fromkeys(range(answers), 0.0), places
        self._last = time.perf_counter()

    def finish(self, answer: int) -> float:
        """The share, in seconds, of an answer that has just been finished."""
        now = time.perf_counter()
        running = list(self._open)[: None if self._places is None else self._places.limit]
        if answer not in running:  # fewer ran than may
            running.append(answer)
        for each in running:
            self._open[each] += (now - self._last) / len(running)
        self._last = now
        return self._open.pop(answer)


def judge_all(
    judges: Sequence[Judge],
    store: Store,
    *,
    on_record: Callable[[JudgementRecord], None] = lambda record: None,
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
            judged = JudgementRecord(
                *record.key, judgement.judge, judgement.label, text_hash(record.text), judgement.detail
            )
            store.add_judgement(judged)
            on_record(judged)


def unjudged(judge: str, store: Store) -> list[AnswerRecord]:
    """The answers that the judge has not judged in their present text, or could not judge."""

    def is_judged(record: AnswerRecord) -> bool:
        last = store.judgements.get((*record.key, judge))
        return last is not None and not last.failed and last.text_sha256 == text_hash(record.text)

    return [record for record in store.answers.values() if not record.error and not is_judged(record)]


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
