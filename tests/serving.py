"""Servers in this process: over a model that says the alphabet, or a scheduler that does what a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from starlette.testclient import TestClient

from adacd_cli.backends import backend_for
from adacd_cli.config import Settings
from adacd_cli.engine import LanguageModel, PrefixCache, Scheduler
from adacd_cli.errors import AdacdError
from adacd_cli.events import Decision, Event, Failed, Finished, FinishReason, Measures, Started, TokenStep
from adacd_cli.server.app import create_app
from adacd_cli.server.state import Metrics, ServerState
from adacd_cli.server.worker import Worker
from tests.byte_tokenizer import make_tokenizer
from tests.fakes import ScriptedModel

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
QUESTION = {"role": "user", "content": "Hi?"}
CHAT = {"model": "letters", "messages": [QUESTION]}


def letters(context: int | None = 4096) -> LanguageModel:
    """A model that says the alphabet, whatever it is asked."""
    tokenizer = make_tokenizer()
    vocabulary = tokenizer.get_vocab()
    after = {vocabulary[a]: vocabulary[b] for a, b in pairwise(ALPHABET)}
    after[vocabulary["z"]] = vocabulary["<|end|>"]

    def script(ids: tuple[int, ...]) -> list[float]:
        logits = [0.0] * len(tokenizer)
        logits[after.get(ids[-1], vocabulary["a"])] = 12.0
        return logits

    return LanguageModel(
        model=ScriptedModel(script),
        tokenizer=tokenizer,
        name="letters",
        revision=None,
        eos_ids=frozenset({vocabulary["<|end|>"]}),
        context_length=context,
    )


class Slow:
    """A scheduler that takes a step only when a test lets it; each gives every request one token.

    Attributes:
        fails: errors by the number of the request that they are told of, at its first step.
        breaks: raised by the next step.
    """

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.taken = 0
        self.fails: dict[int, AdacdError] = {}
        self.breaks: BaseException | None = None
        self.max_concurrency: int | None = None
        self.events: list[Event] = []
        self.cancelled: set[int] = set()
        self.said: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.left: list[tuple[int, int]] = []
        """(request, steps taken before) of each that was cancelled."""

    @property
    def busy(self) -> bool:
        return bool(self.said)

    @property
    def running(self) -> list[int]:
        return list(self.said)

    def submit(self, request: Any) -> int:
        number = len(self.limits)
        self.said[number], self.limits[number] = 0, request.settings.max_new_tokens
        self.events.append(Started(number, "letters", None, "adacd", 5, 3, request.settings.decoding()))
        return number

    def cancel(self, index: int) -> None:
        self.cancelled.add(index)

    def step(self) -> Iterator[Event]:
        while self.events:
            yield self.events.pop(0)
        for number in [each for each in self.said if each in self.cancelled]:
            self.left.append((number, self.taken))
            yield self._end(number, FinishReason.CANCELLED)
        if not self.steps.acquire(timeout=0.002):
            return
        if self.breaks is not None:
            raise self.breaks
        self.taken += 1
        for number in list(self.said):
            if number in self.fails:
                del self.said[number]
                yield Failed.of(number, self.fails[number])
                continue
            letter = ALPHABET[self.said[number] % 26]
            self.said[number] += 1
            place = self.said[number] - 1
            yield TokenStep(number, place, ord(letter), letter, letter, Decision.PLAIN, Measures(0.5), 1, "b")
            if self.said[number] == self.limits[number]:
                yield self._end(number, FinishReason.LENGTH)

    def _end(self, number: int, reason: FinishReason) -> Finished:
        tokens = self.said.pop(number)
        return Finished(number, ALPHABET[:tokens], reason, tokens, 0, 0)


@dataclass(frozen=True)
class Loaded:
    """What the server takes for a model, with a scheduler of the test's."""

    scheduler: Slow
    tokenizer: Any = field(default_factory=make_tokenizer)
    eos_ids: frozenset[int] = frozenset()
    context_length: int | None = None
    profile: Any = None
    server: Any = None


@dataclass
class Site:
    """A server in this process."""

    app: Any
    worker: Worker
    metrics: Metrics
    http: TestClient
    faults: list[BaseException]

    def chat(self, **fields: Any) -> Any:
        """A chat completion's response."""
        return self.http.post("/v1/chat/completions", json={**CHAT, **fields})

    def number(self, name: str, **labels: str) -> float | None:
        """A metric."""
        return self.metrics.registry.get_sample_value(name, labels)


@contextmanager
def site(
    model: Any,
    *,
    max_concurrency: int = 4,
    queue_size: int = 4,
    seconds: float | None = None,
    ready: bool = True,
    **fields: Any,
) -> Iterator[Site]:
    """A server over the model; `fields` are those of `ServerState`."""
    worker = Worker(queue_size=queue_size, seconds=seconds)
    values = {"settings": Settings(), "model_id": "letters", "quiet": True, **fields}
    state = ServerState(**values)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            worker.serve(scheduler)
        except BaseException as error:
            faults.append(error)
            worker.refuse()

    scheduler: Any = getattr(model, "scheduler", None)
    if isinstance(scheduler, Slow):
        scheduler.max_concurrency = max_concurrency
    else:
        cache = PrefixCache(2**20)
        scheduler = Scheduler(backend_for(model), prefix_cache=cache, max_concurrency=max_concurrency)
    app = create_app(state, worker)
    thread = threading.Thread(target=run)
    with TestClient(app, base_url="http://localhost") as http:
        if ready:
            state.set_model(model)
            thread.start()
            until(lambda: worker.state != "loading")
        yield Site(app, worker, worker.metrics, http, faults)
        worker.stop()
        if ready:
            if isinstance(scheduler, Slow):
                scheduler.steps.release(10_000)
            thread.join(30)
            assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what other threads do."""
    wait = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if true():
            return
        wait.wait(0.005)
    raise AssertionError("it did not happen")


def chunks(response: Any) -> list[Any]:
    """What a stream said."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def scope(path: str) -> dict[str, Any]:
    """A POST of JSON, as a server hands it to an application."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
