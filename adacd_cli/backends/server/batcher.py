"""Requests for lists that are wanted at the same time, as few requests of several prompts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from adacd_cli.backends.server.dialect import ServerRefused, ServerUnavailable, TopList
from adacd_cli.backends.server.server import Server
from adacd_cli.errors import AdacdError, ServerError, first_line

# how many prompts travel in one request; not all, for a balancer spreads requests over its replicas
PROMPTS = 8
# how long others may join a request that nobody waits for yet: the streams of an answer are opened in turn
GATHER_SECONDS = 0.02
# lists up to this length are asked for together, as long as the longest one; longer ones by their length
_SHORT = 256
_Wanted = tuple[tuple[int, ...], int, "asyncio.Future[TopList]"]


class Batcher:
    """What runs in the background for one backend, which it does not know; `arrived` is set when something has."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.arrived = threading.Event()
        self._live: set[Future[None]] = set()
        self._wanted: list[_Wanted] = []
        self._prompts = PROMPTS
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # --- in the caller's thread ---

    def start(self, work: Callable[..., Awaitable[None]], *given: Any) -> Future[None]:
        future = self.server.portal.start_task_soon(work, *given)
        self._live.add(future)
        future.add_done_callback(self._end)
        return future

    def _end(self, future: Future[None]) -> None:
        self._live.discard(future)
        self.arrived.set()

    def flush(self) -> None:
        """Sends what was started: somebody waits for it."""
        with suppress(RuntimeError):  # the loop has ended
            self.server.portal.start_task_soon(self._send)

    def cancel(self) -> None:
        for future in list(self._live):
            future.cancel()

    def error_of(self, failure: BaseException) -> AdacdError:
        """What a failure in the background means to the user."""
        if isinstance(failure, AdacdError):
            return failure
        if not isinstance(failure, ServerRefused):
            what = f"{type(failure).__name__}: {first_line(failure).rstrip('.')}"
            return ServerError(f"A response of the server could not be used: {what}.")
        what, hint = "failed", "the server's log may say more"
        if isinstance(failure, ServerUnavailable):
            what, hint = "does not answer any more", "check the server, then ask again"
        message = f"The server at {self.server.address} {what}: {failure.reason.rstrip('.')}."
        return ServerError(message, failure.hint or f"The answer so far is kept; {hint}.")

    # --- in the loop ---

    async def top(self, ids: tuple[int, ...], count: int, *, at_once: bool) -> TopList:
        """The `count` most probable tokens after these ids; see `Dialect.top`. With `at_once` only what is wanted
        in this turn of the loop may join, else what comes before the next `flush` too. Raises ServerRefused or
        ServerUnavailable where this prompt failed; others that travelled with it may not have."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TopList] = loop.create_future()
        self._wanted.append((ids, count, future))
        if at_once:
            loop.call_soon(self._send)
        elif self._timer is None:
            self._timer = loop.call_later(GATHER_SECONDS, self._send)
        return await future

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wanted, self._wanted = self._wanted, []
        groups: dict[int, list[_Wanted]] = {}
        for each in wanted:
            groups.setdefault(max(each[1], _SHORT), []).append(each)
        for group in groups.values():
            for start in range(0, len(group), self._prompts):
                part = group[start : start + self._prompts]
                task = asyncio.get_running_loop().create_task(self._request(part))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                for _, _, future in part:
                    future.add_done_callback(partial(_leave, part, task))

    async def _request(self, part: Sequence[_Wanted]) -> None:
        """Asks for a part, and for each of it alone where that is refused: one prompt may be to blame."""
        prompts, count = [ids for ids, _, _ in part], max(count for _, count, _ in part)
        futures = [future for _, _, future in part]
        try:
            lists = await self.server.probe.dialect.top(prompts, count)
        except Exception as failure:
            final = not isinstance(failure, ServerRefused) or isinstance(failure, ServerUnavailable)
            if final or len(part) == 1:
                for future in futures:
                    if not future.done():
                        future.set_exception(failure)
                return
            await asyncio.gather(*(self._request([each]) for each in part))
            if not any(future.cancelled() or future.exception() for future in futures):
                self._prompts = 1  # it does not take several
            return
        for future, top in zip(futures, lists, strict=True):
            if not future.done():
                future.set_result(top)


def _leave(part: Sequence[_Wanted], task: asyncio.Task[None], _: asyncio.Future[TopList]) -> None:
    """Cancels a request that nobody waits for any more."""
    if all(future.cancelled() for _, _, future in part):
        task.cancel()
