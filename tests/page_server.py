"""A server for the page's tests: it serves the page as `adacd serve` does and answers with scripted events.

What it says on the wire is what `adacd serve` says; a `Script` can also break off, fail, or hang until the
client leaves, which no model does when it is asked to.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adacd_cli.events import Event, Finished, Started, TokenStep, to_json
from tests.traces import SETTINGS


@dataclass(frozen=True)
class Script:
    """What one request is answered.

    Attributes:
        events: Started, TokenStep*, Finished; without a Finished the stream just ends.
        hangs: after the last event, wait until the client leaves.
        error: an `error` object to say in the stream after the events.
        refusals: (status, error, headers) of the first tries, one each.
    """

    events: tuple[Event, ...] = ()
    hangs: bool = False
    error: Mapping[str, Any] | None = None
    refusals: tuple[tuple[int, Any, Mapping[str, str]], ...] = ()


@dataclass
class FakeServer:
    """Its address, what it answers by (prompt, method), and what it was asked.

    Attributes:
        address: of the page, with the path it is served under.
        scripts: by the last message's text and the method.
        settings: the defaults it reports.
        loading: how many times v1/models answers 503 first.
        broken: how many times it answers 500 first.
        bodies: the requests it got, in order of arrival.
        left: how many clients left while a script hung.
    """

    address: str = ""
    scripts: dict[tuple[str, str], Script] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"method": "adacd", "gate": False, **SETTINGS})
    loading: int = 0
    broken: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    def plays(self, prompt: str, default: Script, adacd: Script) -> None:
        """Sets both answers to a prompt."""
        self.scripts |= {(prompt, "default"): default, (prompt, "adacd"): adacd}


def chunks(events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed chat completion with a trace."""
    for event in events:
        delta: dict[str, Any] = {}
        reason = None
        if isinstance(event, Started):
            delta = {"role": "assistant", "content": ""}
            names = "method", "profile", "settings", "seed", "prompted_tokens", "unprompted_tokens"
            about: dict[str, Any] = {"started": {name: getattr(event, name) for name in names}}
        elif isinstance(event, TokenStep):
            values = to_json(event)
            for name in ("event", "request", "elapsed_s"):
                del values[name]
            delta = {"content": "" if event.thinking else event.text}
            about = {"step": {"exact": True, **values}}
        else:
            reason = event.finish_reason.value
            about = {"method": "adacd", "added": event.added, "subtracted": event.subtracted}
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield {"object": "chat.completion.chunk", "choices": [choice], "adacd": about}


@contextmanager
def serving(server: FakeServer, prefix: str = "") -> Iterator[FakeServer]:
    """Runs it on a free port of this machine, in a thread of its own."""
    import uvicorn

    config = uvicorn.Config(_app(server, prefix), port=0, log_level="error", lifespan="off")
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    while not runner.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    server.address = f"http://127.0.0.1:{port}{prefix}/"
    try:
        yield server
    finally:
        runner.should_exit = True
        thread.join(10)


def _app(server: FakeServer, prefix: str) -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    from adacd_cli.server.app import page_file

    def page(request: Request) -> Response:
        return page_file(request.path_params.get("name", "index.html"))

    def models(request: Request) -> Response:
        if server.loading:
            server.loading -= 1
            error = {"message": "The model is still being loaded.", "type": "unavailable"}
            return JSONResponse({"error": error}, 503, {"Retry-After": "0.1"})
        if server.broken:
            server.broken -= 1
            return JSONResponse({"error": {"message": "Something broke."}}, 500)
        entry = {"id": "demo", "object": "model", "created": 0, "owned_by": "adacd"}
        return JSONResponse({"object": "list", "data": [{**entry, "adacd": {"settings": server.settings}}]})

    async def answer(request: Request) -> Response:
        body = await request.json()
        earlier = sum(body == other for other in server.bodies)
        server.bodies.append(body)
        script = server.scripts[body["messages"][-1]["content"], body["adacd"]["method"]]
        if earlier < len(script.refusals):
            status, error, headers = script.refusals[earlier]
            return JSONResponse(error, status, dict(headers))
        return StreamingResponse(_stream(server, script, request), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route(f"{prefix}/", page),
            Route(f"{prefix}/page/{{name}}", page),
            Route(f"{prefix}/v1/models", models),
            Route(f"{prefix}/v1/chat/completions", answer, methods=["POST"]),
        ]
    )


async def _stream(server: FakeServer, script: Script, request: Any) -> AsyncIterator[str]:
    try:
        for chunk in chunks(script.events):
            yield f"data: {json.dumps(chunk)}\n\n"
            await asyncio.sleep(0)
        while script.hangs:
            yield ": still here\n\n"
            await asyncio.sleep(0.02)
        if script.error is not None:
            yield f"data: {json.dumps({'error': script.error})}\n\n"
        elif script.events and isinstance(script.events[-1], Finished):
            yield "data: [DONE]\n\n"
    except asyncio.CancelledError:
        server.left += 1
        raise
