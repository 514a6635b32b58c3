"""From a request that was parsed to its response: has its prompts made, submits it, and sends its events on.

A client that leaves, at whichever point, frees its slot before the scheduler's next step.
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
from adacd_cli.server.errors import ApiError
from adacd_cli.server.openai_format import AnswerFormat
from adacd_cli.server.worker import LAST, Job, JobEvent, Worker

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_RENDERED_AT_ONCE = 4


class Responder:
    """Answers requests through a worker.

    Args:
        worker: decodes.
        on_left: called where a client left before its answer's end.
    """

    def __init__(self, worker: Worker, on_left: Callable[[], None]) -> None:
        self._worker, self._on_left = worker, on_left
        self._rendering = anyio.CapacityLimiter(_RENDERED_AT_ONCE)

    async def respond(
        self,
        request: Request,
        render: Callable[[], Prompts],
        param: str,
        form: AnswerFormat,
        on_answer: Callable[[str], None],
    ) -> Response:
        """The response.

        Args:
            request: the HTTP request.
            render: makes the prompts; called beside the event loop.
            param: the field that holds the prompt.
            form: turns the events into OpenAI's format.
            on_answer: called with the answer's text, once it is whole.

        Raises:
            ApiError: it is refused, or failed before the first byte was sent.
        """
        from adacd_cli.engine import Request as DecodingRequest

        params, job = form.params, self._worker.open()
        try:
            prompts = await anyio.to_thread.run_sync(render, limiter=self._rendering)
            form.warnings = (*params.warnings, *prompts.warnings)
            decoding = DecodingRequest(
                prompts, params.settings, candidates=params.candidates, top_logprobs=params.top_logprobs
            )
            self._worker.submit(job, decoding, param)
            if params.stream:
                started = await _next_event(job)
                assert isinstance(started, Started)
                return _EventStream(_chunks(job, started, form, on_answer), lambda: self._end(job))
        except BaseException:
            self._worker.leave(job)
            raise
        return await self._whole(request, job, form, on_answer)

    def _end(self, job: Job) -> None:
        if not job.closed:
            self._on_left()
        self._worker.leave(job)

    async def _whole(
        self, request: Request, job: Job, form: AnswerFormat, on_answer: Callable[[str], None]
    ) -> Response:
        """The whole answer, unless the client leaves."""

        async def collect() -> dict[str, Any]:
            while not isinstance(event := await _next_event(job), Finished):
                form.add(event)
            on_answer(event.text)
            return form.response(event)

        answer = asyncio.ensure_future(collect())
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return Response(to_json(answer.result()), media_type="application/json")
            return Response(status_code=499)  # nobody reads it
        finally:
            answer.cancel()
            left.cancel()
            self._end(job)


async def _next_event(job: Job) -> Event:
    event = await job.events.get()
    if isinstance(event, ApiError):
        raise event
    return event


async def _chunks(
    job: Job, started: Started, form: AnswerFormat, on_answer: Callable[[str], None]
) -> AsyncIterator[bytes]:
    form.add(started)
    if (opening := form.opening_chunk(started)) is not None:
        yield _line(opening)
    while True:
        events = [await job.events.get()]
        while not job.events.empty():  # a client that reads slowly gets more at a time
            events.append(job.events.get_nowait())
        yield b"".join(line for event in events for line in _lines(event, form))
        if isinstance(events[-1], Finished):
            on_answer(events[-1].text)
        if isinstance(events[-1], LAST):
            return


def _lines(event: JobEvent, form: AnswerFormat) -> Iterator[bytes]:
    if isinstance(event, ApiError):
        yield _line(event.body)
    elif isinstance(event, Finished):
        yield _line(form.final_chunk(event))
        if form.params.usage:
            yield _line(form.usage_chunk(event))
        yield b"data: [DONE]\n\n"
    else:
        form.add(event)
        if isinstance(event, TokenStep) and (chunk := form.token_chunk(event)) is not None:
            yield _line(chunk)


class _EventStream(StreamingResponse):
    """Server-sent events; `end` is called whichever way the stream ends."""

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
