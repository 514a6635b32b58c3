"""The routes that answer, from the request to its response: prompts made, decoding submitted, events sent on.

A client that leaves, at whichever point, frees its slot before the scheduler's next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adacd_cli.events import Event, Finished, Started, TokenStep
from adacd_cli.server.description import describes
from adacd_cli.server.errors import ApiError
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.openai_format import ChatFormat, TextFormat
from adacd_cli.server.params import Params, conversation_of, read_params
from adacd_cli.server.schema import ChatRequest, CommonRequest, CompletionRequest
from adacd_cli.server.state import ServerState
from adacd_cli.server.worker import LAST, Job, JobEvent, Worker

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_RENDERED_AT_ONCE = 4
_SMALL_BODY = 32 * 1024
"""Bytes of a body that is parsed at once; larger ones are parsed beside the event loop."""

Body = TypeVar("Body", bound=CommonRequest)


def _json_body(model: type[Body]) -> Any:
    """The dependency that reads a request's body; pydantic's ValidationError is for the error handler."""

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        # a page of another site can send anything but JSON without a preflight; it always names its origin
        if "origin" in request.headers and not is_json:
            message = "Send the request as JSON, with the header Content-Type: application/json."
            raise ApiError(415, message, code="not_json")
        body = await request.body()
        if len(body) <= _SMALL_BODY:
            return model.model_validate_json(body)
        return await anyio.to_thread.run_sync(model.model_validate_json, body)

    return Depends(read)


ChatBody = Annotated[ChatRequest, _json_body(ChatRequest)]
CompletionBody = Annotated[CompletionRequest, _json_body(CompletionRequest)]


class Responder:
    """Answers requests through a worker; raises ApiError where one is refused, or fails before its first byte."""

    def __init__(self, state: ServerState, worker: Worker, metrics: Metrics) -> None:
        self.worker, self._state, self._metrics = worker, state, metrics
        self._rendering = anyio.CapacityLimiter(_RENDERED_AT_ONCE)

    def add_routes(self, app: FastAPI) -> None:
        """Adds the routes to the application."""
        from adacd_cli.prompts import prompts_for, text_prompts_for

        async def check() -> None:
            self.worker.check()  # before a body is read for nothing

        @app.post("/v1/chat/completions", dependencies=[Depends(check)], **describes(ChatRequest))
        async def chat(request: Request, body: ChatBody) -> Response:
            """Answers a conversation."""
            tokenizer, params = self._params_of(body)
            conversation = conversation_of(body, self._state.settings.system)
            messages = [{"role": each.role, "content": each.text} for each in body.messages]
            self._state.check_size([each["content"] for each in messages], "messages", params)
            form = ChatFormat(self._state.model_id, params, self._state.token_bytes)
            self._state.log(form.id, prompt=messages)
            render = partial(prompts_for, tokenizer, conversation, params.settings)
            return await self._respond(request, render, "messages", form)

        @app.post("/v1/completions", dependencies=[Depends(check)], **describes(CompletionRequest))
        async def completions(request: Request, body: CompletionBody) -> Response:
            """Continues a text."""
            tokenizer, params = self._params_of(body)
            texts = [body.prompt] if isinstance(body.prompt, str) else [""] * len(body.prompt)
            self._state.check_size(texts, "prompt", params)
            form = TextFormat(self._state.model_id, params, self._state.token_bytes)
            self._state.log(form.id, prompt=body.prompt)
            render = partial(text_prompts_for, tokenizer, body.prompt, params.settings)
            return await self._respond(request, render, "prompt", form)

    def _params_of(self, body: CommonRequest) -> tuple[Any, Params]:
        self._state.check_model(body.model)
        assert self._state.model is not None
        params = read_params(body, self._state.settings, self._state.max_answer_tokens)
        self._state.warn(params.warnings)
        return self._state.model.tokenizer, params

    async def _respond(
        self, request: Request, render: Callable[[], Prompts], param: str, form: ChatFormat
    ) -> Response:
        from adacd_cli.engine import Request as DecodingRequest

        params, job = form.params, self.worker.open()
        try:
            checked = partial(self._state.render, render, param, params)
            prompts = await anyio.to_thread.run_sync(checked, limiter=self._rendering)
            form.warnings = (*params.warnings, *prompts.warnings)
            decoding = DecodingRequest(
                prompts, params.settings, candidates=params.candidates, top_logprobs=params.top_logprobs
            )
            self.worker.submit(job, decoding, param)
            if params.stream:
                started = await _next_event(job)
                assert isinstance(started, Started)
                return _EventStream(self._chunks(job, started, form), partial(self._end, job))
        except BaseException:
            self.worker.leave(job)
            raise
        return await self._whole(request, job, form)

    def _end(self, job: Job) -> None:
        if not job.closed:
            self._metrics.left.inc()
        self.worker.leave(job)

    async def _whole(self, request: Request, job: Job, form: ChatFormat) -> Response:
        """The whole answer, unless the client leaves."""

        async def collect() -> dict[str, Any]:
            while not isinstance(event := await _next_event(job), Finished):
                form.add(event)
            self._state.log(form.id, answer=event.text)
            return form.response(event)

        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        answer, left = asyncio.ensure_future(collect()), asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return Response(to_json(answer.result()), media_type="application/json")
            return Response(status_code=499)  # nobody reads it
        finally:
            answer.cancel()
            left.cancel()
            self._end(job)

    async def _chunks(self, job: Job, started: Started, form: ChatFormat) -> AsyncIterator[bytes]:
        form.add(started)
        if (opening := form.opening_chunk(started)) is not None:
            yield _line(opening)
        while True:
            events = [await job.events.get()]
            while not job.events.empty():  # a client that reads slowly gets more at a time
                events.append(job.events.get_nowait())
            yield b"".join(line for event in events for line in _lines(event, form))
            if isinstance(events[-1], Finished):
                self._state.log(form.id, answer=events[-1].text)
            if isinstance(events[-1], LAST):
                return


async def _next_event(job: Job) -> Event:
    event = await job.events.get()
    if isinstance(event, ApiError):
        raise event
    return event


def _lines(event: JobEvent, form: ChatFormat) -> Iterator[bytes]:
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


def _line(chunk: dict[str, Any]) -> bytes:
    return b"data: " + to_json(chunk) + b"\n\n"


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
