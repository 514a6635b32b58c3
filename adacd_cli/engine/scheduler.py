"""THE loop: requests in at any time, events out, a step at a time.

A step feeds every running request what its streams lack (a prompt's chunk, or the last token), in one forward of
the backend, and chooses a token for each request whose logits have arrived: by its method's rule inside the
contrast window, plainly elsewhere. A request's tokens do not depend on who runs beside it. How it is computed is
the backend's business, what a token means is the request's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch

from adacd_cli.engine import partial
from adacd_cli.engine.answer import Phase
from adacd_cli.engine.backend import Backend, FreeRun, stacked
from adacd_cli.engine.feeder import Feeder, score
from adacd_cli.engine.model import Request, validate
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.engine.state import RequestState
from adacd_cli.engine.step import PackedStep, StepOutcome, pack_step, unpack
from adacd_cli.errors import OutOfMemoryError
from adacd_cli.events import Event, Failed, Finished, Notice, ScoredToken

# while others run, new requests are admitted once an eighth of the slots is free, to be prefilled as a batch
_ADMITTED = 8
# requests of like length are picked from this many times as many as run at once, the oldest ones
_CONSIDERED = 8
# how long a step waits where nothing has arrived: so soon it notices that a request was cancelled
_WAIT_SECONDS = 0.1


class Scheduler:
    """Decodes requests side by side.

        scheduler = Scheduler(backend)
        index = scheduler.submit(request)
        while scheduler.busy:
            for event in scheduler.step():
                …

    Ended requests leave their sequences in the prefix cache for later ones; None keeps none. At most
    `max_concurrency` requests run at once, None for no limit; as an attribute it is lowered where memory is short,
    until all that run have ended.
    """

    def __init__(
        self, backend: Backend, *, prefix_cache: PrefixCache | None = None, max_concurrency: int | None = None
    ) -> None:
        self.backend, self._can = backend, backend.capabilities
        self._feeder = Feeder(backend, PrefixCache(0) if prefix_cache is None else prefix_cache)
        self.max_concurrency = self._limit = max_concurrency
        self.running: list[RequestState] = []  # in the order of their admission
        self.waiting: deque[RequestState] = deque()  # those that do not run yet
        self._submitted, self._runs = 0, 0
        self._events: deque[Event] = deque()
        self._forks_missed = False

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting or self._events)

    def submit(self, request: Request, which: str = "The prompt") -> int:
        """Takes a request in, and gives its number in the events, which counts the requests submitted; it runs as
        soon as there is a slot, and its Started comes with the next step. `which` is what its prompt is called in
        an error. Raises as `validate`, and ModelError where weights that the method needs are not loaded."""
        validate(request, self.backend.model, self._can, which)
        state = RequestState(self._submitted, request, self.backend.model, self._can.device)
        for stream in state.streams.values():
            self.backend.alike(stream.weights, 0, 0)  # refuses weights that are not loaded
        if not (self.running or self.waiting):  # what was short of memory has ended
            self.max_concurrency = self._limit
        self._submitted += 1
        self.waiting.append(state)
        self._events.append(state.started(fork=self._can.fork))
        if len(state.streams) > 1 and not (self._can.fork or self._forks_missed):
            self._forks_missed = True
            text = "This model keeps a running state, which cannot be forked: each stream reads its whole prompt."
            self._events.append(Notice(text))
        return state.index

    def cancel(self, index: int) -> None:
        """Ends a request as CANCELLED before the next step."""
        for state in (*self.running, *self.waiting):
            state.cancelled |= state.index == index

    def score(self, request: Request, top: int) -> list[ScoredToken]:
        """The log-probabilities of a request's own prompt, and `top` others at each place; see `feeder.score`.
        What runs computes its keys and values anew where this fails. Raises as `submit`, and what the backend fails
        with."""
        model = self.backend.model
        validate(request, model, self._can)
        try:
            return score(self.backend, model.tokenizer, request.prompts.base.ids, top)
        except BaseException:
            self._feeder.close_all(self.running)
            raise

    def submit_all(self, requests: Sequence[Request]) -> None:
        assert not self.busy, "a batch is taken in when nothing else runs"
        self._submitted, self._runs = 0, self._runs + 1
        try:
            for number, request in enumerate(requests, 1):
                self.submit(request, "The prompt" if len(requests) == 1 else f"Prompt {number}")
        except BaseException:
            self.waiting.clear()
            self._events.clear()
            raise

    def run(self, cancelled: Callable[[int], bool]) -> Iterator[Event]:
        """The events of what was taken in, to the end of all. `cancelled` is asked before each step with a
        request's number; True ends it as CANCELLED, and so does a KeyboardInterrupt with all before it is raised.
        """
        own = self._runs
        try:
            while self.busy:
                for state in (*self.running, *self.waiting):
                    state.cancelled |= cancelled(state.index)
                yield from self.step()
        except BaseException as error:
            # whoever keeps an iterator after its last event may let go of it when a later run has begun
            ends = list(self.close()) if own == self._runs else []
            if isinstance(error, KeyboardInterrupt):  # a consumer sees every request end
                yield from ends
            raise

    def limit_to(self, max_concurrency: int | None) -> None:
        """Lets so many requests run at once from now on."""
        self.max_concurrency = self._limit = max_concurrency

    def step(self) -> Iterator[Event]:
        """At most one token for every running request, a stretch for those that the backend decodes. After a
        KeyboardInterrupt, which comes during a forward, `close` gives the events of what was not finished."""
        yield from self._told()
        for state in (*self.running, *self.waiting):
            if state.cancelled or state.finish is not None:  # finished: no token was asked for
                yield self._end(state)
        try:
            self._admit()
            self._feeder.feed(self.running)
            failed = [(state, fault) for state in self.running if (fault := self._feeder.collect(state))]
            self._feeder.complete(self.running)
            chosen = self._choose([state for state in self.running if state.ready and state.failure is None])
        except OutOfMemoryError as error:
            yield from self._start_again(error)
            return
        except Exception as error:  # the backend's own, of any kind; every sequence is closed
            self._feeder.close_all(self.running)
            for state in list(self.running):
                yield self._end(state, error)
            return
        except BaseException:
            self._feeder.close_all(self.running)
            raise
        yield from self._told()
        for state, failure in failed:
            yield self._end(state, failure)
        for state, outcome in chosen:
            yield from self._take(state, outcome)
        arrived = bool(failed or chosen)
        for state in list(self.running):
            if state.run is not None:
                for event in self._take_streamed(state, state.run):
                    arrived = True
                    yield event
        if self.running and not arrived:
            self.backend.wait(_WAIT_SECONDS)

    def close(self) -> Iterator[Event]:
        yield from self._told()
        for state in (*self.running, *self.waiting):
            yield self._end(state)

    def _told(self) -> Iterator[Event]:
        self._events.extend(map(Notice, self.backend.notices()))
        while self._events:
            yield self._events.popleft()

    # --- admission and ends ---

    def _admit(self) -> None:
        """Moves waiting requests into free slots: the one that waits longest, and others of like length."""
        limit = self.max_concurrency or len(self.running) + len(self.waiting)
        free = min(limit - len(self.running), len(self.waiting))
        enough = min(len(self.waiting), -(-limit // _ADMITTED))
        if free < 1 or (self.running and free < enough):
            return
        first, *others = islice(self.waiting, _CONSIDERED * limit)
        length = len(first.base.prompt)
        others.sort(key=lambda state: abs(len(state.base.prompt) - length))
        admitted = {id(state): state for state in (first, *others[: free - 1])}
        self.waiting = deque(state for state in self.waiting if id(state) not in admitted)
        for state in sorted(admitted.values(), key=lambda state: state.index):
            if not state.ids:
                state.begin()
            self.running.append(state)

    def _end(self, state: RequestState, error: BaseException | None = None) -> Finished | Failed:
        """Lets a request go, parks what it leaves, and gives its last event."""
        self._feeder.end_run(state)
        for stream in state.streams.values():
            self._feeder.close(stream, park=error is None and (stream is state.base or stream.recurs))
        (self.running if state in self.running else self.waiting).remove(state)
        finished = state.finished()
        return finished if error is None else Failed.of(state.index, error)

    def _start_again(self, error: OutOfMemoryError) -> Iterator[Event]:
        """Without what was parked, or half as many requests at once."""
        states, cleared = list(self.running), self._feeder.close_all(self.running)
        if not cleared and len(states) <= 1:
            single = OutOfMemoryError(
                f"The memory of {self._can.device} is not enough for a single request: {error.message}",
                "Use a shorter prompt, a smaller --max-new-tokens, --dtype bfloat16 or --quantize.",
            )
            for state in states:
                yield self._end(state, single)
            return
        if not cleared:
            self.max_concurrency = len(states) // 2
        self.running = []
        self.waiting.extendleft(reversed(states))

    # --- choosing ---

    def _choose(self, ready: list[RequestState]) -> list[tuple[RequestState, StepOutcome | None]]:
        """An outcome for each; None where a draft's proposals are to be verified one after another."""
        alike: dict[Hashable, list[RequestState]] = {}
        for state in ready:
            if not state.drafts:
                alike.setdefault(state.alike, []).append(state)
        parts = [self._pack(states) for states in alike.values()]
        ordered = [state for states in alike.values() for state in states]
        if self._can.run_ahead and ordered:
            self._feeder.feed_ahead(ordered, torch.cat([part.tokens for part in parts]))
        outcomes = unpack(parts) if parts else []
        drafted = [(state, None) for state in ready if state.drafts]
        return [*zip(ordered, outcomes, strict=True), *drafted]

    def _pack(self, states: list[RequestState]) -> PackedStep:
        first = states[0]
        logits = {
            name: stacked([logits for state in states if (logits := state.streams[name].logits) is not None])
            for name in first.logits()
        }
        vocab = logits[first.base.name].shape[-1]
        drawn = [noise for state in states if (noise := state.draw(vocab)) is not None]
        noise = torch.cat(drawn) if drawn else None
        return pack_step(first.rule, logits, first.settings, noise, first.report, first.process)

    def _take(self, state: RequestState, outcome: StepOutcome | None) -> Iterator[Event]:
        if outcome is None:
            yield from self._verify(state)
        else:
            if not self._can.full_logits:
                sure = state.switch_exact and not state.needs(self._can.vocab_size or 0)
                outcome = replace(partial.only_told(outcome, state.logits()), exact=sure)
                if not sure:
                    self.backend.found_inexact()
            yield from self._take_one(state, outcome)
        if not state.closed:
            self._feeder.close_unwanted(state)

    def _take_one(self, state: RequestState, outcome: StepOutcome, *, last: bool = False) -> Iterator[Event]:
        if not outcome.finite:
            yield self._end(state, state.not_finite())
            return
        yield state.take(outcome, last=last)
        if state.finish is not None:
            yield self._end(state)

    def _verify(self, state: RequestState) -> Iterator[Event]:
        """Chooses at every proposed place, up to the first token that is not the draft's, which ends the round."""
        proposals, state.proposals = state.proposals, []
        target, draft = state.streams.values()
        scored = target.logits
        assert scored is not None
        for place, (proposed, drafted) in enumerate(proposals):
            logits = {target.name: scored.at(place - len(proposals)), draft.name: drafted}
            vocab = min(each.shape[-1] for each in logits.values())
            logits = {name: each[:, :vocab] for name, each in logits.items()}
            noise = state.draw(scored.batch.shape[-1])
            noise = None if noise is None else noise[:, :vocab]
            packed = pack_step(state.rule, logits, state.settings, noise, state.report, state.process)
            outcome = unpack([packed])[0]
            yield from self._take_one(state, outcome)
            if state.closed or state.failure is not None:
                return
            state.rule_state.log(match=outcome.token_id == proposed)
            if outcome.token_id != proposed:
                break
        for stream in (target, draft):
            self._feeder.trim(stream, len(stream.prompt) + len(state.ids) - 1)

    def _take_streamed(self, state: RequestState, run: FreeRun) -> Iterator[Event]:
        """The tokens that have come of a stretch, until the request ends or its contrast window begins."""
        try:
            tokens = run.take()
        except Exception as error:
            yield self._end(state, error)
            return
        for sampled in tokens:
            if state.phase is Phase.UNDECIDED:
                state.settle(sampled.token_id)
            state.base.fed += 1
            outcome = partial.outcome_of(sampled, state.report, self._can.vocab_size or 0)
            yield from self._take_one(state, outcome, last=sampled.last)
            if state.closed:
                return
            if state.wants_contrast:
                break
        if state.wants_contrast or run.done():
            self._feeder.end_run(state)
