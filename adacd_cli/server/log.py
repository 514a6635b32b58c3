"""One line a request on stderr, and its count: which route, what status, how long; never what was said.

What no handler caught ends here as a 500 without details, and a traceback where it was asked for.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Collection

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adacd_cli.server.errors import of
from adacd_cli.server.metrics import Metrics
from adacd_cli.server.responses import failure

_LEFT = 499
"""The status of a client that left before it was answered."""

_FOLDERS = ("/page", "/v1/models")
"""Routes with many paths, which share a label."""

OTHER = "other"
"""The label of all paths that are no route."""


class AccessLog:
    """Outermost: sees every request and every status.

    Args:
        app: what is asked.
        metrics: what is counted.
        routes: the paths that have a label of their own.
        quiet: whether no lines are written.
        debug: whether tracebacks are.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Collection[str], *, quiet: bool, debug: bool
    ) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes
        self._quiet, self._debug = quiet, debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:  # while its body was read
            status = status or _LEFT
        except Exception as error:
            if self._debug:
                traceback.print_exc()
            if status == 0:
                await failure(of(error))(scope, receive, noted)
        finally:
            self._note(scope, status or _LEFT, time.perf_counter() - begin)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        folders = (route for route in _FOLDERS if path.startswith(f"{route}/"))
        label = path if path in self._routes else next(folders, OTHER)
        self._metrics.requests.labels(label, str(status)).inc()
        self._metrics.seconds.labels(label).observe(seconds)
        if not self._quiet:
            client = scope["client"][0] if scope.get("client") else "-"
            shown = repr(path[:100])[1:-1]  # a path may hold control characters
            line = f"{client} {repr(scope['method'][:10])[1:-1]} {shown} {status} {seconds:.2f} s"
            print(line, file=sys.stderr, flush=True)
