"""Runs a server in this process: the socket first, then HTTP on a thread of its own, then the model on this.

The model's thread is the caller's, because what is loaded and compiled on a thread is best used there, and
because Ctrl-C comes there.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from adacd_cli.errors import INTERRUPTED, AdacdError, first_line
from adacd_cli.server.served import Served
from adacd_cli.server.worker import Worker

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Places

_LAST_BYTES_S = 10
"""How long, after the last answer, clients may take to read what was sent."""

_KEPT_OPEN_S = 75
"""How long a connection without a request is kept; one that is used again must not be found closed."""

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        AdacdError: the address cannot be had; the sentence says why.
    """
    shown = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise AdacdError(
            f"There is no address {host} here: {reason}.", "Give a --host of this machine, such as 127.0.0.1."
        ) from error
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AdacdError(
            f"{shown} cannot be listened on: {(error.strerror or first_line(error)).lower()}.",
            "Give another --port, or stop what uses this one.",
        ) from error
    listening.setblocking(False)
    return listening


class Http:
    """HTTP on a thread of its own.

    Args:
        app: the ASGI application.
        listening: the socket.
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what is said, `log` and the errors say
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_keep_alive=_KEPT_OPEN_S,
            timeout_graceful_shutdown=_LAST_BYTES_S,
            h11_max_incomplete_event_size=64 * 1024,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listening,), name="http", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, *, at_once: bool = False) -> None:
        """Stops answering: once what was said has been read, or at once."""
        self._server.should_exit = True
        self._server.force_exit = at_once
        self._thread.join(_LAST_BYTES_S + 5)

    def _run(self, listening: socket.socket) -> None:
        asyncio.run(self._server.serve([listening]))


class Signals:
    """SIGTERM and the first Ctrl-C ask the worker to finish; a second one stops at once.

    Args:
        worker: what is asked.
        said: told, once, that the server is stopping.

    Attributes:
        first: the signal that came first; None while none did.
        again: whether another one came.
    """

    def __init__(self, worker: Worker, said: Callable[[], None]) -> None:
        self.first: int | None = None
        self.again = False
        self._worker, self._said = worker, said

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if self.first is not None or self._worker.state == "loading":
            self.again = self.first is not None
            self.first = self.first or number
            # C code that sees a KeyboardInterrupt pass may have the process end by SIGINT
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(0)
        self.first = number
        self._worker.stop()
        self._said()


@contextmanager
def handled(signals: Signals) -> Iterator[None]:
    """Has the signals come to these handlers while the block runs."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signals.take) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run(
    http: Http,
    worker: Worker,
    served: Served,
    signals: Signals,
    begin: Callable[[], tuple[LanguageModel, Places]],
    ready: Callable[[Places], None],
    broken: Callable[[BaseException], int],
) -> int:
    """Serves until a signal comes.

    Args:
        http: what speaks HTTP, from now on.
        worker: what decodes, on this thread.
        served: what is served; takes the model.
        signals: the handlers.
        begin: loads the model, and says how many requests run at once.
        ready: told that it is there.
        broken: shows what broke the model, and gives the exit code.

    Returns:
        The exit code: 0 after SIGTERM, 143 after a second one, 130 after Ctrl-C, or that of `broken`.

    Raises:
        AdacdError: what `begin` raised.
        KeyboardInterrupt: Ctrl-C came while the model was loaded, or a second time.
    """
    code, at_once = 0, False
    http.start()
    try:
        model, places = begin()
        served.take(model)
        if signals.first is None:
            ready(places)
        else:  # it came while a library kept it for itself
            worker.stop()
        worker.serve(model, served.settings, places)
    except (KeyboardInterrupt, SystemExit):
        at_once = True
        if signals.first != signal.SIGTERM:
            raise KeyboardInterrupt from None
        if signals.again:  # answers were cut off
            code = 128 + signal.SIGTERM
    except BaseException as error:
        at_once = True
        if served.model is None and signals.first is None:
            raise
        if served.model is not None:
            code = broken(error)
            worker.refuse()
    finally:
        http.stop(at_once=at_once)
    return INTERRUPTED if code == 0 and signals.first == signal.SIGINT else code
