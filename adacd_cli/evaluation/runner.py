"""Answers every sample with every method, many at once, and has the answers judged.

All methods answer a portion of like length before the next one begins, so that they are timed on the same
machine and paired at any moment; within it, the next sample takes the place of one that is answered. What is
in the store is not done again. What fails is tried again in halves, and by itself at last; a sample that
fails even so is recorded, and the run goes on.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError, OutputError, first_line
from adacd_cli.evaluation.judges.base import Exchange, Judge
from adacd_cli.evaluation.records import AnswerRecord, JudgementRecord
from adacd_cli.evaluation.sample import Sample
from adacd_cli.evaluation.store import Store
from adacd_cli.events import Finished, FinishReason

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Places, Prefixes, Request

Told = Callable[[AnswerRecord], None]


_PORTION = 8
"""How many times as many samples as run at once are answered by one method before the next one's turn."""


def portions(samples: Iterable[Sample], size: int) -> list[list[Sample]]:
    """Portions of samples of like length: prompts padded to the longest cost what the longest costs."""
    ordered = sorted(samples, key=lambda sample: len(sample.prompt))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def answer_all(
    model: LanguageModel,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: int | Literal["auto"],
    told: Told = lambda record: None,
) -> None:
    """Answers whatever the store does not hold yet, or holds as failed.

    Args:
        model: with everything that the methods need (`loading.load_extras`).
        samples: the prompts of all sets.
        runs: the settings of each method.
        store: keeps each answer as it is finished.
        batch_size: prompts decoded at once; "auto" is as many as memory has room for.
        told: called with each new record.

    Raises:
        OutputError: an answer cannot be written.
        OutOfMemoryError: memory is not enough for a single prompt.
        KeyboardInterrupt: what was finished is in the store.
    """
    from adacd_cli.engine import Prefixes

    places = places_for(model, samples, runs, batch_size)
    known = Prefixes(limit=2 * len(runs), renew=False)
    for portion in portions(samples, _PORTION * (places.limit or 1)):
        for settings in runs:
            label = settings.method_label
            missing = [
                sample
                for sample in portion
                if (before := store.answers.get((label, sample.dataset, sample.id))) is None or before.error
            ]
            for record in answer_batch(model, missing, settings, places=places, known=known):
                store.add_answer(record)
                told(record)


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
        longest = max(samples, key=lambda sample: len(sample.prompt))
        try:
            requests.append(_request(model, longest, settings))
        except AdacdError:  # a prompt that cannot be rendered is recorded when its turn comes
            continue
    return speed.places_for(model, requests, batch_size)


def answer_batch(
    model: LanguageModel,
    batch: Sequence[Sample],
    settings: Settings,
    *,
    places: Places | None = None,
    known: Prefixes | None = None,
) -> Iterator[AnswerRecord]:
    """The records of samples as they are answered; where that fails, of their halves.

    Args:
        model: with everything that the method needs.
        batch: the samples.
        settings: the method's.
        places: how many are decoded at once, lowered where memory is short; None for all.
        known: what prompts begin with; None for nothing.
    """
    if not batch:
        return
    finished: set[str] = set()
    try:
        for record in _decode(model, batch, settings, places, known):
            finished.add(f"{record.dataset}\0{record.id}")
            yield record
        return
    except OutputError:
        raise
    except Exception as error:
        left = [sample for sample in batch if f"{sample.dataset}\0{sample.id}" not in finished]
        if len(left) == 1 and len(batch) == 1:
            yield AnswerRecord.of(settings.method_label, left[0], error=first_line(error))
            return
    middle = max(1, len(left) // 2)
    yield from answer_batch(model, left[:middle], settings, places=places, known=known)
    yield from answer_batch(model, left[middle:], settings, places=places, known=known)


def _request(model: LanguageModel, sample: Sample, settings: Settings) -> Request:
    from adacd_cli.engine import Request
    from adacd_cli.prompts import prompts_for

    prompts = prompts_for(model.tokenizer, Conversation.ask(sample.prompt, settings.system), settings)
    return Request(prompts, settings, _seed(sample, settings))


def _decode(
    model: LanguageModel,
    batch: Sequence[Sample],
    settings: Settings,
    places: Places | None,
    known: Prefixes | None,
) -> Iterator[AnswerRecord]:
    from adacd_cli.engine import decode

    requests = [_request(model, sample, settings) for sample in batch]
    clock = _Shares(len(batch), places)
    for event in decode(model, requests, places=places, known=known):
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
                seconds=clock.finish(event.request),
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
        limit = None if self._places is None else self._places.limit
        running = list(self._open)[:limit]
        if answer not in running:  # fewer ran than may
            running.append(answer)
        for each in running:
            self._open[each] += (now - self._last) / len(running)
        self._last = now
        return self._open.pop(answer)


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
