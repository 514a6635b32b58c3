"""The server behind a served model, and the event loop in a thread of its own that its requests run in."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from adacd_cli.backends.server.client import Client
from adacd_cli.backends.server.dialect import Dialect
from adacd_cli.backends.server.probe import Probe

_Result = TypeVar("_Result")


class Background:
    """An event loop for code that is not asynchronous itself; it runs until `stop`, or dies with the process."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        work = (self._main(started),)
        self._thread = threading.Thread(target=asyncio.run, args=work, name="adacd-requests", daemon=True)
        self._thread.start()
        self._loop = started.result()

    async def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        loop = asyncio.get_running_loop()
        self._last: asyncio.Future[Coroutine[Any, Any, None]] = loop.create_future()
        started.set_result(loop)
        last = await self._last
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await last

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Starts the work; the future may be cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Does the work and gives its result; an interruption cancels it."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancels everything, does one last thing, and ends the thread."""
        if not self._thread.is_alive():
            last.close()
            return
        self.call(lambda: self._last.set_result(last))
        if threading.current_thread() is not self._thread:  # which may collect the loop's owner as garbage
            self._thread.join(timeout=2.0)


class Server:
    """A server that was checked; its requests run in the `background`, `concurrency` of them at once where nobody
    says. `notices` are what the user should know while answers come, until somebody takes them."""

    def __init__(
        self, background: Background, client: Client, dialect: Dialect, probe: Probe, vocab: int
    ) -> None:
        self.background, self.dialect, self.probe, self.vocab = background, dialect, probe, vocab
        self.concurrency = probe.concurrency
        self.notices: deque[str] = deque()
        self._noticed: set[str] = set()
        own = weakref.ref(self)  # the client is part of what closes it
        client.notify = lambda notice: None if (server := own()) is None else server._notice("slow", notice)
        self.close = weakref.finalize(self, lambda: background.stop(client.close()))
        """Ends its connections; also called when nobody needs it any more."""

    def facts(self) -> dict[str, str]:
        """The server's dialect and the model that is requested there; no secret."""
        return {"server": self.probe.dialect, "served_model": self.probe.model}

    def found_inexact(self) -> None:
        """Notices that a token was chosen without all the values that it depends on."""
        most = self.dialect.most
        self._notice(
            "inexact",
            "A token that could have been chosen was not among the "
            f"{'log-probabilities' if most is None else f'{most} log-probabilities'} that the server gives "
            "of a step, so not every token is certain (`exact` is false in its event). "
            "vLLM gives all of them with --max-logprobs -1.",
        )

    def _notice(self, about: str, text: str) -> None:
        if about not in self._noticed:  # once each
            self._noticed.add(about)
            self.notices.append(text)
