"""An event loop in a thread of its own, for code that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Background:
    """The loop; it runs until `stop`, and dies with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="adacd-requests", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Starts the work; the future may be cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], None]) -> None:
        """Calls something in the loop's thread."""
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
        self.start(self._end(last))
        if threading.current_thread() is not self._thread:  # which may collect the loop's owner as garbage
            self._thread.join(timeout=2.0)

    async def _end(self, last: Coroutine[Any, Any, None]) -> None:
        await self._cancel_others()
        await last
        # httpx leaves the generators of a response that was not read to its end to the loop
        await self._loop.shutdown_asyncgens()
        await self._cancel_others()
        self._loop.stop()

    @staticmethod
    async def _cancel_others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()
