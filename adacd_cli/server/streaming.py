"""From the events of a request's answers to its response: whole, or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from adacd_cli.events import Finished, Started
from adacd_cli.server.errors import ApiError
from adacd_cli.server.fields import JSON
from adacd_cli.server.openai_format import ChatFormat, usage_of
from adacd_cli.server.state import ServerState
from adacd_cli.server.translation import ChunkWriter
from adacd_cli.server.worker import Job, Told, Worker

ChoiceEvent = tuple[int, Told]  # the place of an answer among those to a request, and what happened to it


@dataclass
class Reply:
    """The answers to a request on their way, each with its job and its form; so many in a row as `per_prompt` are
    answers to one prompt. The jobs end with the response, whichever way it ends."""

    state: ServerState
    worker: Worker
    jobs: Sequence[Job]
    forms: Sequence[ChatFormat]
    per_prompt: int
    writer: ChunkWriter

    async def respond(self, request: Request) -> Response:
        """The response; raises ApiError where a request fails before its first byte."""
        if not self.forms[0].params.stream:
            return await self._whole(request)
        events, begun = self._events(), list[ChoiceEvent]()
        while sum(isinstance(event, Started) for _, event in begun) < len(self.jobs):
            begun += await events.__anext__()  # what is refused is refused by its status
        return _EventStream(self._chunks(begun, events), self._end, self.writer.media_type)

    def leave(self) -> None:
        """Nobody awaits the answers any more."""
        for job in self.jobs:
            self.worker.leave(job)

    def _end(self) -> None:
        if not any(job.closed for job in self.jobs):  # they are where one fails
            self.worker.metrics.left.inc()
        self.leave()

    async def _events(self) -> AsyncIterator[list[ChoiceEvent]]:
        """What happens to the answers until all are finished; raises the first error."""
        queue, left = self.jobs[0].events, len(self.jobs)
        while left:
            events = [await queue.get()]
            while not queue.empty():  # a client that reads slowly gets more at a time
                events.append(queue.get_nowait())
            errors = [event for _, event in events if isinstance(event, ApiError)]
            good = [(choice, event) for choice, event in events if not isinstance(event, ApiError)]
            for choice, event in good:
                if isinstance(event, Finished):
                    left -= 1
                    self.state.log(self.forms[choice].id, answer=event.text)
            yield good
            if errors:
                raise errors[0]

    async def _whole(self, request: Request) -> Response:

        async def collect() -> JSON:
            ends: dict[int, Finished] = {}
            async for events in self._events():
                for choice, event in events:
                    if isinstance(event, Finished):
                        ends[choice] = event
                    else:
                        self.forms[choice].add(event)
            responses = [form.response(ends[choice]) for choice, form in enumerate(self.forms)]
            return self.writer.whole(self._merged(responses) if len(responses) > 1 else responses[0])

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
            self._end()

    def _merged(self, responses: Sequence[JSON]) -> JSON:
        owns = [each["adacd"] for each in responses]
        warnings = list(dict.fromkeys(text for own in owns for text in own.pop("warnings", ())))
        counts = {name: sum(own[name] for own in owns) for name in ("added", "subtracted")}
        choices = [{**each["choices"][0], "adacd": each["adacd"]} for each in responses]
        adacd = {"method": owns[0]["method"], **counts, **({"warnings": warnings} if warnings else {})}
        usage = usage_of(self.forms, self.per_prompt)
        return {**responses[0], "choices": choices, "usage": usage, "adacd": adacd}

    async def _chunks(
        self, begun: Sequence[ChoiceEvent], events: AsyncIterator[list[ChoiceEvent]]
    ) -> AsyncIterator[bytes]:
        first = next(event for _, event in begun if isinstance(event, Started))
        yield self.writer.begin(self.forms[0].head, first.unprompted_tokens)
        yield self._written(begun)
        try:
            async for some in events:
                yield self._written(some)
        except ApiError as error:
            yield self.writer.fail(error.body)
            return
        if self.forms[0].params.usage:
            form, usage = self.forms[0], usage_of(self.forms, self.per_prompt)
            head = {**form.head, "object": form.chunk_object}
            yield self.writer.chunk({**head, "choices": [], "usage": usage})
        yield self.writer.end()

    def _written(self, events: Sequence[ChoiceEvent]) -> bytes:
        chunks = [self.forms[choice].chunk_of(event) for choice, event in events]
        return b"".join(self.writer.chunk(chunk) for chunk in chunks if chunk is not None)


class _EventStream(StreamingResponse):
    """A stream of chunks; `end` is called whichever way it ends."""

    def __init__(self, chunks: AsyncIterator[bytes], end: Callable[[], None], media_type: str) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers=headers, media_type=media_type)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()
