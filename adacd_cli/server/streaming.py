"""From the events of a request's answers to its response: whole, or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from adacd_cli.events import Finished, Notice, ScoredToken, Started, TokenStep
from adacd_cli.server.errors import ApiError
from adacd_cli.server.openai_format import JSON
from adacd_cli.server.worker import Job

Told = Started | TokenStep | Notice | Finished | list[ScoredToken]
ChoiceEvent = tuple[int, Told]
"""The place of an answer among those to a request, and what happened to it."""


class ChunkWriter:
    """How an answer is sent: whole, or as server-sent events; other formats are made of these by subclasses."""

    media_type = "text/event-stream"

    def whole(self, response: JSON) -> JSON:
        """The whole response."""
        return response

    def begin(self, head: JSON, prompt_tokens: int) -> bytes:
        """What opens a stream of chunks with these fields in common: `id`, `created` and `model`."""
        return b""

    def chunk(self, chunk: JSON) -> bytes:
        """The next chunk."""
        return sent_event(chunk)

    def fail(self, error: JSON) -> bytes:
        """What ends a stream that failed: an error in OpenAI's format."""
        return sent_event(error)

    def end(self) -> bytes:
        """What ends a stream."""
        return b"data: [DONE]\n\n"


def sent_event(data: JSON, name: str = "") -> bytes:
    """A server-sent event, with or without a name."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + to_json(data) + b"\n\n"


def pieces(delta: JSON) -> list[tuple[str, str]]:
    """What a chunk adds, or a whole message holds: ("thinking", its text) and ("text", its text)."""
    names = (("thinking", "reasoning_content"), ("text", "content"))
    return [(kind, delta[name]) for kind, name in names if delta.get(name)]


def merged(responses: Sequence[JSON], per_prompt: int) -> JSON:
    """The response with the choices of several; so many in a row are answers to one prompt."""
    if len(responses) == 1:
        return responses[0]
    owns = [each["adacd"] for each in responses]
    warnings = list(dict.fromkeys(text for own in owns for text in own.pop("warnings", ())))
    counts = {name: sum(own[name] for own in owns) for name in ("added", "subtracted")}
    return {
        **responses[0],
        "choices": [{**each["choices"][0], "adacd": own} for each, own in zip(responses, owns, strict=True)],
        "usage": total_usage([each["usage"] for each in responses], per_prompt),
        "adacd": {"method": owns[0]["method"], **counts, **({"warnings": warnings} if warnings else {})},
    }


def total_usage(usages: Sequence[JSON], per_prompt: int) -> JSON:
    """The usage of several answers, of which so many in a row are answers to one prompt."""
    prompt = sum(each["prompt_tokens"] for each in usages[::per_prompt])
    completion = sum(each["completion_tokens"] for each in usages)
    thinking = sum(each["completion_tokens_details"]["reasoning_tokens"] for each in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


async def events_of(jobs: Sequence[Job]) -> AsyncIterator[list[ChoiceEvent]]:
    """What happens to the answers, each with its place, until all are finished; raises the first error."""
    queue, left = jobs[0].events, len(jobs)
    while left:
        events = [await queue.get()]
        while not queue.empty():  # a client that reads slowly gets more at a time
            events.append(queue.get_nowait())
        errors = [event for _, event in events if isinstance(event, ApiError)]
        good = [(choice, event) for choice, event in events if not isinstance(event, ApiError)]
        left -= sum(isinstance(event, Finished) for _, event in good)
        yield good
        if errors:
            raise errors[0]


class EventStream(StreamingResponse):
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
