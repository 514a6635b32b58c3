"""From a request that was read to its response: opens it, has its prompts made, and sends its events on.

A client that leaves, at whichever point, frees its row before the decoder's next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adacd_cli.events import Event, Finished, Started, TokenStep
from adacd_cli.server.errors import of
from adacd_cli.server.shapes import Shape, reason_of
from adacd_cli.server.ticket import Heard, Ticket
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli import engine
    from adacd_cli.prompts import Prompts

_RENDERED_AT_ONCE = 4


class Answering:
    """Answers requests by a worker.

    Args:
        worker: what decodes.
        left: called where a client left before its answer's end.
    """

    def __init__(self, worker: Worker, left: Callable[[], None]) -> None:
        self._worker, self._left = worker, left
        self._rendering = anyio.CapacityLimiter(_RENDERED_AT_ONCE)

    async def answer(
        self,
        request: Request,
        make: Callable[[], Prompts],
        shape: Shape,
        said: Callable[[str], None],
    ) -> Response:
        """The response.

        Args:
            request: the HTTP request.
            make: makes the prompts; called beside the event loop.
            shape: what the events become.
            said: told the answer, once it is whole.

        Raises:
            ApiError: it is refused, or failed before the first byte was sent.
        """
        ticket = self._worker.open()
        try:
            prompts = await anyio.to_thread.run_sync(make, limiter=self._rendering)
            shape.warnings = (*shape.wanted.warnings, *prompts.warnings)
            self._worker.submit(ticket, self._request(prompts, shape))
            if shape.wanted.stream:
                started = await self._heard(ticket)
                assert isinstance(started, Started)
                return _Stream(self._chunks(ticket, started, shape, said), lambda: self._end(ticket))
        except BaseException:
            self._worker.leave(ticket)
            raise
        return await self._whole(request, ticket, shape, said)

    def _request(self, prompts: Prompts, shape: Shape) -> engine.Request:
        from adacd_cli.engine import Request

        wanted = shape.wanted
        return Request(
            prompts,
            wanted.settings,
            candidates=wanted.candidates,
            top_logprobs=wanted.top_logprobs,
        )

    def _end(self, ticket: Ticket) -> None:
        if not ticket.closed:
            self._left()
        self._worker.leave(ticket)

    async def _heard(self, ticket: Ticket) -> Event:
        event = await ticket.events.get()
        if isinstance(event, BaseException):
            raise of(event)
        return event

    async def _whole(
        self, request: Request, ticket: Ticket, shape: Shape, said: Callable[[str], None]
    ) -> Response:
        """The whole answer, unless the client leaves."""

        async def collect() -> dict[str, Any]:
            while not isinstance(event := await self._heard(ticket), Finished):
                shape.hear(event)
            said(event.text)
            return shape.whole(event, reason_of(event))

        answer = asyncio.ensure_future(collect())
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return Response(to_json(answer.result()), media_type="application/json")
            return Response(status_code=499)  # nobody reads it
        finally:
            answer.cancel()
            gone.cancel()
            self._end(ticket)

    async def _chunks(
        self, ticket: Ticket, started: Started, shape: Shape, said: Callable[[str], None]
    ) -> AsyncIterator[bytes]:
        shape.hear(started)
        if (opening := shape.first(started)) is not None:
            yield _line(opening)
        while True:
            heard = [await ticket.events.get()]
            while not ticket.events.empty():  # a client that reads slowly gets more at a time
                heard.append(ticket.events.get_nowait())
            yield b"".join(line for event in heard for line in _lines(event, shape))
            if isinstance(heard[-1], Finished):
                said(heard[-1].text)
            if isinstance(heard[-1], (Finished, BaseException)):
                return


def _lines(event: Heard, shape: Shape) -> Iterator[bytes]:
    """What a stream says of an event."""
    if isinstance(event, BaseException):
        yield _line(of(event).body)
    elif isinstance(event, Finished):
        yield _line(shape.last(event, reason_of(event)))
        if shape.wanted.usage:
            yield _line(shape.usage(event))
        yield b"data: [DONE]\n\n"
    else:
        shape.hear(event)
        if isinstance(event, TokenStep) and (chunk := shape.chunk(event)) is not None:
            yield _line(chunk)


class _Stream(StreamingResponse):
    """Server-sent events; `end` is called whichever way it ends."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], end: Callable[[], None]) -> None:
        super().__init__(chunks, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _line(chunk: dict[str, Any]) -> bytes:
    return b"data: " + to_json(chunk) + b"\n\n"


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
