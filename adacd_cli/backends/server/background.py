"""An event loop in a thread of its own, for code that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Background:
    """The loop; it runs until `stop`, and dies with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="adacd-requests", daemon=True)
        self._thread.start()

    def start(
        self, *works: tuple[Coroutine[Any, Any, _Result], Callable[[asyncio.Task[_Result]], None]]
    ) -> list[Callable[[], None]]:
        """Starts works side by side, in one turn of the loop, and gives what cancels each.

        Args:
            works: what to do, and what to call in the loop's thread when it has ended, cancelled or not.
        """
        tasks: list[asyncio.Task[_Result]] = []

        def begin() -> None:
            for work, done in works:
                tasks.append(self._loop.create_task(work))
                tasks[-1].add_done_callback(done)

        def cancel(place: int) -> None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(lambda: tasks[place].cancel())

        self._loop.call_soon_threadsafe(begin)
        return [partial(cancel, place) for place in range(len(works))]

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Does the work and gives its result; an interruption cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
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
        asyncio.run_coroutine_threadsafe(self._end(last), self._loop)
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
