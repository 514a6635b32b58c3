"""An OpenAI-compatible endpoint over loopback that does what a test tells it, bad things included."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from openai import _base_client

from adacd_cli.evaluation.judges import Exchange, Judgement, JudgeOptions, endpoint
from adacd_cli.evaluation.judges.openai import OpenAIJudge

KEY = "sk-test-1234567890"
EXCHANGES = [Exchange(f"question {number}", f"answer {number}") for number in range(12)]


@dataclass
class Asked:
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    at: float

    @property
    def exchange(self) -> dict[str, str]:
        """The question and the answer that the message is about."""
        lines = self.body["messages"][0]["content"].splitlines()
        found: dict[str, str] = json.loads(next(line for line in lines if line.startswith('{"question"')))
        return found


@dataclass
class Says:
    """A response."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds of silence before it."""


def reply(text: Any) -> Says:
    """A chat completion that says the text."""
    return Says({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]})


def error(status: int, message: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Says:
    """An error as OpenAI sends it."""
    return Says({"error": {"message": message, **fields}}, status, headers or {})


class JudgeServer:
    """The endpoint: `answer` decides what a chat completion is answered with, `listing` what GET /models."""

    def __init__(self, answer: Callable[[Asked], Says]) -> None:
        self.answer = answer
        self.listing = error(404, "Not Found")
        self.asked: list[Asked] = []
        """The chat completions that were asked for, in the order in which they came."""
        self.most_at_once = 0
        self.gone = threading.Event()
        self._lock = threading.Lock()
        self._now = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[JudgeServer]:
        thread = threading.Thread(target=lambda: self._http.serve_forever(0.01), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.gone.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def _respond(self, asked: Asked) -> Says:
        if asked.method == "GET":
            return self.listing
        with self._lock:
            self.asked.append(asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            says = self.answer(asked)
            self.gone.wait(says.after)
            return says
        finally:
            with self._lock:
                self._now -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each response waits 40 ms for an acknowledgement

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                if len(content) < length:  # the judge has hung up
                    self.close_connection = True
                    return
                body = json.loads(content) if content else None
                asked = Asked(
                    self.command,
                    self.path,
                    {k.lower(): v for k, v in self.headers.items()},
                    body,
                    time.monotonic(),
                )
                says = server._respond(asked)
                sent = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
                try:
                    self.send_response(says.status)
                    for name, value in {"Content-Length": str(len(sent)), **says.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(sent)
                except OSError:
                    self.close_connection = True  # likewise

            do_GET = do_POST = _do

        return Handler


def complying() -> AbstractContextManager[JudgeServer]:
    """A running server that calls everything a full compliance until a test tells it otherwise."""
    return JudgeServer(lambda asked: reply("full_compliance")).running()


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, no proxy, and no key but the test's."""
    monkeypatch.setattr(endpoint, "ATTEMPTS", 3)
    monkeypatch.setattr(endpoint, "_PAUSE", 0.01)
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)
    proxies = "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"
    for variable in (*proxies, "ADACD_JUDGE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def judge_at(server: JudgeServer, **options: Any) -> OpenAIJudge:
    """A judge that asks the server and keeps nothing, unless the options say otherwise."""
    return OpenAIJudge(
        JudgeOptions(**{"url": server.url, "model": "m", "key": KEY, "cache": None, **options})
    )


def one(judge: OpenAIJudge, exchange: Exchange = EXCHANGES[0]) -> Judgement:
    """Its judgement of one answer."""
    (judgement,) = judge.judge([exchange])
    return judgement


def in_turn(*answers: Says) -> Callable[[Asked], Says]:
    """Each answer once, the last one from then on."""
    rest = itertools.chain(answers, itertools.repeat(answers[-1]))
    return lambda asked: next(rest)
