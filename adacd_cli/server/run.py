"""Runs a server in this process: the socket, then HTTP on a thread of its own, then the model on this one, the
caller's: what is loaded and compiled on a thread is best used there, and Ctrl-C arrives there."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from adacd_cli.errors import INTERRUPTED, AdacdError, first_line
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli.engine import Scheduler

_LAST_BYTES_S = 10  # how long, after the last answer, clients may take to read what was sent


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. AdacdError where the address cannot be used; the sentence says why."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        hint = "Give a --host of this machine, such as 127.0.0.1."
        raise AdacdError(f"This machine has no address {host}: {reason}.", hint) from error
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # :: takes IPv4 too
    try:
        listening = socket.create_server(where, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        shown = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
        reason = (os.strerror(error.errno) if error.errno else first_line(error)).lower()
        hint = "Give another --port, or stop the program that uses it."
        raise AdacdError(f"Cannot listen on {shown}: {reason}.", hint) from error
    listening.setblocking(False)
    return listening


class Http:
    """HTTP on a thread of its own: an ASGI application on a socket."""

    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level=logging.CRITICAL + 1,  # `AccessLog` and the errors say it all
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=75,  # seconds: a connection that is used again must not be found closed
            timeout_graceful_shutdown=_LAST_BYTES_S,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve([listening])), name="http", daemon=True
        )
        self.start = self._thread.start

    def stop(self, *, at_once: bool = False) -> None:
        """Stops answering: once clients have read what was sent, or at once."""
        self._server.should_exit = True
        self._server.force_exit = at_once
        self._thread.join(_LAST_BYTES_S + 5)


class Signals:
    """SIGTERM and the first Ctrl-C have the worker finish its requests; a second one stops at once. `first` is the
    signal that came first, None while none did; `again` tells whether another one came."""

    def __init__(self, worker: Worker, on_stop: Callable[[], None]) -> None:
        self.first: int | None = None
        self.again = False
        self._worker, self._on_stop = worker, on_stop

    def take(self, number: int, frame: FrameType | None) -> None:
        if self.first is not None or self._worker.state == "loading":
            self.again = self.first is not None
            self.first = self.first or number
            # C code that sees a KeyboardInterrupt pass may have the process end by SIGINT
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(0)
        self.first = number
        self._worker.stop()
        self._on_stop()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Installs the handlers while the block runs."""
        before = {number: signal.signal(number, self.take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(
    http: Http,
    worker: Worker,
    signals: Signals,
    begin: Callable[[], Scheduler],
    ready: Callable[[Scheduler], None],
    broken: Callable[[BaseException], int],
) -> int:
    """Serves until a signal comes: HTTP from now on, and decoding on this thread.

    Args:
        begin: loads the model; what it raises is raised here.
        ready: called once the model is loaded.
        broken: shows what broke the model thread, and gives the exit code.

    Returns the exit code: 0 after SIGTERM, 143 after a second one, 130 after Ctrl-C, or that of `broken`. Raises
    KeyboardInterrupt where Ctrl-C came while the model was loaded, or a second time.
    """
    code, at_once, scheduler = 0, False, None
    http.start()
    try:
        scheduler = begin()
        if signals.first is None:
            ready(scheduler)
        else:  # it came while a library kept it to itself
            worker.stop()
        worker.serve(scheduler)
    except (KeyboardInterrupt, SystemExit):
        at_once = True
        if signals.first != signal.SIGTERM:
            raise KeyboardInterrupt from None
        if signals.again:  # answers were cut off
            code = 128 + signal.SIGTERM
    except BaseException as error:
        at_once = True
        if scheduler is None and signals.first is None:
            raise
        if scheduler is not None:
            code = broken(error)
            worker.refuse()
    finally:
        http.stop(at_once=at_once)
    return INTERRUPTED if code == 0 and signals.first == signal.SIGINT else code
