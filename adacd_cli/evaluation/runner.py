"""Answers every sample with every method, many at once, and has the answers judged. The methods take turns: all of
them answer a batch before the next one begins, so that they are timed at the same moment, and each is the first as
often as the last. What is in the store is not done again; a sample that fails is recorded as failed, and the run
goes on."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from adacd_cli.answers import BatchSize, Session, concurrency_for
from adacd_cli.conversation import Conversation
from adacd_cli.errors import AdacdError
from adacd_cli.evaluation.datasets.files import Sample
from adacd_cli.evaluation.judges import Exchange, Judge
from adacd_cli.evaluation.store import AnswerRecord, JudgementRecord, Store
from adacd_cli.events import Failed, Finished, Notice, TokenStep

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Request

_TURNS = 8
_FROM_EVENT = ("text", "tokens", "added", "subtracted")


class Job(NamedTuple):
    """One sample to answer with one method's settings."""

    sample: Sample
    settings: Settings


def batches(samples: Iterable[Sample], size: int) -> list[list[Sample]]:
    """Batches of samples of similar length: prompts padded to the longest cost what the longest costs."""
    ordered = sorted(samples, key=lambda sample: len(sample.prompt))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def turn_size(samples: int, at_once: int) -> int:
    """How many samples are a method's batch of one turn: as many as are decoded AT ONCE, and up to eight times as
    many in a run that still has eight turns for the median, because the last answers of each batch leave slots
    idle."""
    return at_once * min(_TURNS, max(1, samples // (_TURNS * at_once)))


class Runner:
    """Answers jobs with one scheduler, whose prefix cache is kept for the whole run, and a model that has
    everything that the methods need (`load_extras`)."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._scheduler = Session(model).scheduler

    def limit(self, samples: Sequence[Sample], runs: Sequence[Settings], batch_size: BatchSize) -> int:
        """Sets how many samples are decoded at once from now on, and gives that number: BATCH_SIZE, or what memory
        has room for, by the longest prompt."""
        requests, longest = [], sorted(samples, key=lambda each: len(each.prompt))[-1:]
        for job in (Job(sample, settings) for sample in longest for settings in runs):
            with suppress(AdacdError):  # a prompt that cannot be rendered is recorded when its turn comes
                requests.append(self._request(job))
        # twice: one request would be run alone
        concurrency = concurrency_for(self._scheduler.backend, requests * 2, batch_size)
        self._scheduler.limit_to(concurrency)
        return concurrency

    def records(
        self, jobs: Sequence[Job], on_notice: Callable[[str], object] = lambda text: None, *, batch: int = 0
    ) -> Iterator[AnswerRecord]:
        """The records of jobs, in the order in which they end or fail, with the number of their BATCH. A record's
        seconds are its share of the time, by the wall and by the processor: each step's time is divided equally
        among the jobs that ran, so a method that decodes one answer after another is compared fairly with one that
        decodes many. Jobs that an exception interrupts have no record."""
        scheduler, own = self._scheduler, dict[int, Job]()
        seconds, cpu_seconds = defaultdict[int, float](float), defaultdict[int, float](float)
        computes = self.model.server is None and self.model.device.type == "cpu"
        for job in jobs:
            try:
                own[scheduler.submit(self._request(job))] = job
            except AdacdError as error:
                label = job.settings.method_label
                yield AnswerRecord.of(label, job.sample, error=error.message, batch=batch)
        try:
            while scheduler.busy:
                ran = {state.index for state in scheduler.running}
                begin, cpu_begin = time.perf_counter(), time.process_time()
                events = list(scheduler.step())
                ran |= {event.request for event in events if isinstance(event, TokenStep)}
                ran |= {state.index for state in scheduler.running}
                took, worked = time.perf_counter() - begin, time.process_time() - cpu_begin
                for number in ran:
                    seconds[number] += took / len(ran)
                    cpu_seconds[number] += worked / len(ran) if computes else 0.0
                for event in events:
                    if isinstance(event, Notice):
                        on_notice(event.text)
                    elif isinstance(event, (Finished, Failed)):
                        number = event.request
                        values: dict[str, Any] = {"batch": batch, "error": getattr(event, "message", "")}
                        if isinstance(event, Finished):
                            values |= {"seconds": seconds[number], "cpu_seconds": cpu_seconds[number]}
                            values |= {name: getattr(event, name) for name in _FROM_EVENT}
                            values["finish_reason"] = event.finish_reason.value
                        yield AnswerRecord.of(own[number].settings.method_label, own[number].sample, **values)
        except BaseException:
            deque(scheduler.close(), maxlen=0)  # those are no answers
            raise

    def _request(self, job: Job) -> Request:
        from adacd_cli.engine import Request
        from adacd_cli.profiles.store import applied
        from adacd_cli.prompts import prompts_for

        sample, settings = job.sample, applied(job.settings, self.model.profile)
        conversation = Conversation.ask(sample.prompt, settings.system)
        prompts = prompts_for(self.model.tokenizer, conversation, settings)
        # a seed of the sample's own, the same in every batch and for every method
        own = zlib.crc32(f"{sample.dataset}/{sample.id}".encode("utf-8", "surrogatepass"))
        return Request(prompts, settings, seed=((settings.seed or 0) + own) % 2**63, top_logprobs=0)


def answer_all(
    model: LanguageModel,
    samples: Sequence[Sample],
    runs: Sequence[Settings],
    store: Store,
    *,
    batch_size: BatchSize,
    on_record: Callable[[AnswerRecord], None] = lambda record: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> None:
    """Answers whatever the store does not hold yet, or holds as failed; see Runner for the arguments. OutputError
    where an answer cannot be written; after a KeyboardInterrupt what was finished is in the store."""
    runner = Runner(model)
    at_once = runner.limit(samples, runs, batch_size)
    size = turn_size(len(samples), at_once) if len(runs) > 1 else at_once * _TURNS
    for number, batch in enumerate(batches(samples, size), next_batch(store)):
        for settings in runs if number % 2 else runs[::-1]:  # each is the first as often as the last
            jobs = [Job(sample, settings) for sample in batch if store.lacks(settings.method_label, sample)]
            for record in runner.records(jobs, on_notice, batch=number):
                store.add(record)
                on_record(record)


def next_batch(store: Store) -> int:
    """The number of the next batch: a run that is continued goes on counting."""
    return 1 + max((record.batch for record in store.answers.values()), default=0)


def judge_all(
    judges: Sequence[Judge],
    store: Store,
    *,
    on_record: Callable[[JudgementRecord], None] = lambda record: None,
) -> None:
    """Has every answer judged that is not judged yet; an answer that failed has nothing to judge. AdacdError where
    a judge gave up, or a judgement cannot be written; what was judged is then in the store."""
    for judge in judges:
        waiting = unjudged(judge.name, store)
        exchanges = [Exchange(record.prompt, record.text) for record in waiting]
        for record, judgement in zip(waiting, judge.judge(exchanges), strict=True):
            digest = text_hash(record.text)
            judged = JudgementRecord(*record.key, judgement.judge, judgement.label, digest, judgement.detail)
            store.add(judged)
            on_record(judged)


def unjudged(judge: str, store: Store) -> list[AnswerRecord]:
    """The answers that the judge has not judged in their present text, or could not judge."""

    def is_judged(record: AnswerRecord) -> bool:
        last = store.judgements.get((*record.key, judge))
        return last is not None and not last.failed and last.text_sha256 == text_hash(record.text)

    return [record for record in store.answers.values() if not record.error and not is_judged(record)]


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
