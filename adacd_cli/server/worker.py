"""The model thread: takes requests in, steps the scheduler, and hands each request its events. A request is opened
on the event loop (`open`), submitted with its prompts, and gets its events in an asyncio queue. How many requests
may wait, and what happens when the model thread breaks, is decided here."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.events import Failed, Finished, Notice, ScoredToken, Started, TokenStep
from adacd_cli.server.errors import ApiError, api_error, refused
from adacd_cli.server.state import Metrics

if TYPE_CHECKING:
    from adacd_cli.engine import Request, Scheduler

State = Literal["loading", "ready", "stopping", "failed"]
Told = Started | TokenStep | Notice | Finished | list[ScoredToken]
JobEvent = Told | ApiError

_RETRY_S = 1
_RETRY_LOADING_S = 5
_USUAL_CONCURRENCY = 64
_RETURN_S = 2.0  # how often to give freed memory back: KV caches of all lengths fragment the heap


class Job:
    """One answer of a request on its way through the model thread; made by `Worker.open`. `events` are what
    happened so far to the request's answers, each with its `choice`, 0-based, awaited in the event loop `loop`."""

    def __init__(
        self, events: asyncio.Queue[tuple[int, JobEvent]], choice: int, seconds: float | None
    ) -> None:
        self.events, self.choice = events, choice
        self.loop, self.opened = asyncio.get_running_loop(), time.perf_counter()
        self.cancelled = False
        self.closed = False  # whether its slot is free again
        self.request: Request | None = None  # what to decode, once its prompts are made
        self.param: str | None = None  # the field that holds them
        self.score: int | None = None  # log-probabilities to tell of each token of its prompt; None for none
        self.started: Started | None = None  # the event that opened it, until its first token comes
        self.timer = None if seconds is None else self.loop.call_later(seconds, self.cancel)

    def cancel(self) -> None:
        self.cancelled = True


class Worker:
    """Decodes for a server.

    Args:
        queue_size: how many requests may wait for a slot.
        seconds: how long a request may take, waiting included; None for any time.
        on_notice: called with what concerns no request alone, a sentence or two.
    """

    def __init__(
        self,
        *,
        queue_size: int = 64,
        seconds: float | None = None,
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.state: State = "loading"
        self.metrics = Metrics()
        self._fault: BaseException | None = None
        self._queue_size, self._seconds, self._on_notice = queue_size, seconds, on_notice
        # put() of this queue may be called from a signal handler
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open = 0
        self._counting = threading.Lock()
        self._stopping = False
        self._scheduler: Scheduler | None = None
        self._jobs: dict[int, Job] = {}
        self._unscored: deque[Job] = deque()
        self.metrics.queue.set_function(lambda: max(0, self._open - self._running()))
        self.metrics.running.set_function(self._running)
        self.metrics.max_concurrency.set_function(lambda: self._max_concurrency(0))
        self.metrics.ready.set_function(lambda: self.state == "ready")

    def _running(self) -> int:
        return 0 if self._scheduler is None else len(self._scheduler.running)

    def _max_concurrency(self, usual: int) -> int:
        return getattr(self._scheduler, "max_concurrency", None) or usual

    # --- on the event loop ---

    def check(self) -> None:
        """Refuses a request as `check_state`, and by 429 where the queue is full."""
        self.check_state()
        if self._open >= self._queue_size + self._max_concurrency(_USUAL_CONCURRENCY):
            message = "The server is busy and its queue is full; try again in a moment."
            raise ApiError(429, message, code="queue_full", headers={"Retry-After": str(_RETRY_S)})

    def check_state(self) -> None:
        """Refuses, by 503, what cannot be answered at all now: while loading, stopping or failed."""
        if self.state == "loading":
            message = "The model is still being loaded."
            raise ApiError(503, message, code="loading", headers={"Retry-After": str(_RETRY_LOADING_S)})
        if self.state == "stopping":
            raise ApiError(503, "The server is stopping.", code="stopping")
        if self.state == "failed":
            raise _broken(self._fault)

    def open(self, answers: int = 1) -> list[Job]:
        """Takes slots, or places in the queue, for the answers of a request whose prompts are still to be made. A
        queue that has room for one takes all."""
        self.check()
        with self._counting:
            self._open += answers
        events: asyncio.Queue[tuple[int, JobEvent]] = asyncio.Queue()
        return [Job(events, choice, self._seconds) for choice in range(answers)]

    def submit(self, job: Job, request: Request, param: str, score: int | None = None) -> None:
        """Hands the request over, whose prompt is in the field `param`; its events begin to come."""
        job.request, job.param, job.score = request, param, score
        self._inbox.put(job)

    def leave(self, job: Job) -> None:
        """Nobody awaits its events any more: its slot is freed before the next step."""
        if job.timer is not None:
            job.timer.cancel()
        job.cancel()
        if job.request is None:
            self._close(job)

    # --- on either thread ---

    def _close(self, job: Job) -> None:
        with self._counting:
            if job.closed:
                return
            job.closed = True
            self._open -= 1
        if self._stopping:
            self._inbox.put(None)  # it may have been the last one

    # --- on the model thread, and in signal handlers ---

    def stop(self) -> None:
        """Takes no more requests; `serve` returns when those it has are finished."""
        if self.state != "failed":
            self.state = "stopping"
        self._stopping = True
        self._inbox.put(None)

    def serve(self, scheduler: Scheduler) -> None:
        """Decodes until `stop` is called and every request is finished. What breaks it is reported to every
        request, those to come included, and raised."""
        from adacd_cli.engine.memory import return_freed_memory

        returned = time.monotonic()
        try:
            self._scheduler = scheduler
            if not self._stopping:
                self.state = "ready"
            while not self._stopping or scheduler.busy or self._open:
                self._take_in(scheduler)
                if self._unscored:  # one between two steps: it holds up what runs
                    self._begin(scheduler, self._unscored[0])
                    self._unscored.popleft()
                if scheduler.busy:
                    self._step(scheduler)
                if time.monotonic() > returned + _RETURN_S:
                    return_freed_memory()
                    returned = time.monotonic()
        except BaseException as error:
            self._break(error)
            raise

    def refuse(self) -> None:
        """After a fault: answers later requests with it, until `stop` is called."""
        while not self._stopping:
            job = self._inbox.get()
            if job is not None:
                self._send([(job, _broken(self._fault))])

    def _take_in(self, scheduler: Scheduler) -> None:
        wait = not (scheduler.busy or self._unscored)
        with suppress(queue.Empty):
            while (job := self._inbox.get(wait)) is not None or not wait:
                if job is None or job.request is None:
                    continue
                wait = False
                if job.score is None:
                    self._begin(scheduler, job)
                else:
                    self._unscored.append(job)

    def _begin(self, scheduler: Scheduler, job: Job) -> None:
        """Scores the prompt where that is wanted, and submits the request."""
        assert job.request is not None
        try:
            if job.score is not None and not job.cancelled:  # no need to read what nobody waits for
                self._send([(job, scheduler.score(job.request, job.score))])
            self._jobs[scheduler.submit(job.request)] = job
        except PromptError as error:
            self._send([(job, refused(error.message, job.param, "context_length_exceeded"))])
        except AdacdError as error:
            self._send([(job, api_error(error))])

    def _step(self, scheduler: Scheduler) -> None:
        for index, job in self._jobs.items():
            if job.cancelled:
                scheduler.cancel(index)
        sent: list[tuple[Job, JobEvent]] = []
        for event in list(scheduler.step()):
            if event.request is None:  # a Notice
                self._on_notice(event.text)
                continue
            job = self._jobs[event.request]
            if isinstance(event, Failed):
                if not isinstance(error := event.exception(), AdacdError):
                    raise error  # it has broken the model for later requests too
                sent.append((job, api_error(error)))
                continue
            sent.append((job, event))
            if isinstance(event, Started):
                job.started = event
            elif isinstance(event, TokenStep):
                self.metrics.decisions[event.decision].inc()
                self.metrics.generated.inc()
                if (begun := job.started) is not None:
                    self.metrics.prompt.inc(begun.unprompted_tokens + begun.prompted_tokens)
                    self.metrics.first_token.observe(time.perf_counter() - job.opened)
                    job.started = None
        self._send(sent)
        self._jobs = {index: job for index, job in self._jobs.items() if not job.closed}

    def _send(self, sent: Iterable[tuple[Job, JobEvent]]) -> None:
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Job, JobEvent]]] = defaultdict(list)
        for job, event in sent:
            by_loop[job.loop].append((job, event))
            if isinstance(event, (Finished, ApiError)):
                self._close(job)
        for loop, own in by_loop.items():
            with suppress(RuntimeError):  # nobody listens on a loop that is closed
                loop.call_soon_threadsafe(_deliver, own)

    def _break(self, error: BaseException) -> None:
        self._fault, self.state, self._scheduler = error, "failed", None
        jobs: list[Job | None] = [*self._jobs.values(), *self._unscored]
        self._jobs.clear()
        with suppress(queue.Empty):
            while True:
                jobs.append(self._inbox.get_nowait())
        self._send([(job, _broken(error)) for job in jobs if job is not None])


def _broken(error: BaseException | None) -> ApiError:
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return ApiError(503, "The server was stopped.", code="stopping")
    name = type(error).__name__
    return ApiError(503, f"The model failed ({name}); the server has to be restarted.", code="failed")


def _deliver(sent: list[tuple[Job, JobEvent]]) -> None:
    for job, event in sent:
        job.events.put_nowait((job.choice, event))
