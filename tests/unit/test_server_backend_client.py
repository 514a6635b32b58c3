"""Requests to servers that send too much, too little, or nothing at all; raw ones over loopback."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from adacd_cli.backends.server import client as client_module
from adacd_cli.backends.server.client import Address, Client
from adacd_cli.backends.server.dialect import ReadTimeout, ServerRefused, ServerUnavailable

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.002)
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)


@asynccontextmanager
async def asking(say, scheme="http"):
    """A client of a server that answers each connection with `say(writer)`, and the connections so far."""
    connections = []

    async def serve(reader, writer):
        connections.append(1)
        with suppress(OSError):
            await reader.read(1)
            await say(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(Address.parse(f"{scheme}://127.0.0.1:{port}/v1"), None)
    try:
        yield client, connections
    finally:
        await client.close()
        server.close()


def sends(*pieces, then=None):
    """Sends the pieces one by one, then the last one again and again; None says nothing more."""

    async def say(writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        while True:
            await asyncio.sleep(0.001)
            writer.write(then or b"")
            await writer.drain()

    return say


def streamed(say):
    """The events of a stream, and what ended it."""

    async def ask():
        events = []
        async with asking(say) as (client, _):
            try:
                async with aclosing(client.stream(f"{client.address.base}/completions", {})) as stream:
                    async for event in stream:
                        events.append(event)
            except ServerRefused as failure:
                return events, failure
            return events, None

    return asyncio.run(ask())


def asked(say, method="post", scheme="http"):
    """What a question failed with, how many connections were made, and what the user was told."""

    async def ask():
        async with asking(say, scheme) as (client, connections):
            told = []
            client.notify = told.append
            with pytest.raises(ServerRefused) as error:
                await (client.ask("/".join((client.address.base, "x"))) if method == "get" else _post(client))
            return error.value, len(connections), told

    return asyncio.run(ask())


async def _post(client):
    return await client.ask(f"{client.address.base}/completions", {})


def test_the_lines_of_a_stream_may_come_in_any_pieces():
    whole = 'data: {"a": "é"}\r\n\r\n: ping\n\ndata: {"b": 1}\n\ndata: [DONE]\n\n'.encode()
    for size in (1, 2, 7, 1000):
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert streamed(sends(HEAD, *pieces)) == ([{"a": "é"}, {"b": 1}], None)


def test_a_line_without_an_end_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(client_module, "LARGEST", 3000)
    events, failure = streamed(sends(HEAD, b'data: {"a": 1}\n\n', then=b"x" * 1000))
    assert events == [{"a": 1}]
    assert failure.reason == "a line of its stream is longer than 3,000 bytes"


@pytest.mark.parametrize("then", [None, b": ping\n\n", b"x"])
def test_a_stream_that_falls_silent_is_given_up(monkeypatch, then):
    """Comments and halves of a line keep a connection, and are no token."""
    monkeypatch.setattr(client_module, "NEXT_SECONDS", 0.05)
    events, failure = streamed(sends(HEAD, b'data: {"a": 1}\n\n', then=then))
    assert events == [{"a": 1}]
    assert isinstance(failure, ReadTimeout)
    assert failure.reason == "it gave no token for 0.05 s"


@pytest.mark.parametrize(
    ("say", "method"),
    [(sends(), "post"), (sends(HEAD, then=b" "), "post"), (sends(HEAD, then=b" "), "get")],
)
def test_a_server_that_says_nothing_is_asked_once_and_the_user_told(monkeypatch, say, method):
    for name in ("FIRST_SECONDS", "LOOKING_SECONDS"):
        monkeypatch.setattr(client_module, name, 0.2)
    monkeypatch.setattr(client_module, "NOTICE_SECONDS", 0.02)
    failure, connections, told = asked(say, method)
    assert isinstance(failure, ReadTimeout)
    assert failure.reason == "it gave no answer within 0.2 s"
    assert connections < 2
    assert told == ["The server has sent nothing for 0.02 s; waiting up to 0.2 s."]


def test_after_a_silence_the_next_requests_are_given_less(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_SECONDS", 0.06)
    monkeypatch.setattr(client_module, "NEXT_SECONDS", 0.03)

    async def ask():
        reasons = []
        async with asking(sends()) as (client, _):
            for _ in range(2):
                with pytest.raises(ReadTimeout) as error:
                    await _post(client)
                reasons.append(error.value.reason)
        return reasons

    assert asyncio.run(ask()) == ["it gave no answer within 0.06 s", "it gave no answer within 0.03 s"]


def test_a_connection_that_breaks_is_tried_again():
    async def hang_up(writer):
        pass

    failure, connections, _ = asked(hang_up)
    assert isinstance(failure, ServerUnavailable)
    assert connections == client_module.ATTEMPTS


def test_https_where_there_is_no_tls_fails_at_once():
    failure, connections, _ = asked(sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), scheme="https")
    assert failure.reason.startswith("there is no secure connection: ")
    assert failure.hint == "Write http:// in the address if the server has no TLS."
    assert connections < 2


def test_https_to_a_server_that_waits_for_a_line_is_tried_once(monkeypatch):
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.05)
    failure, connections, _ = asked(sends(), scheme="https")
    assert failure.reason == "no connection within 0.05 s"
    assert failure.hint == (
        "Start it, or check the address and the port; write http:// in the address if the server has no TLS."
    )
    assert connections < 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [(500, ServerUnavailable), (503, ServerUnavailable), (400, ServerRefused), ("x", ServerRefused)],
)
def test_an_error_in_a_stream_is_what_its_code_says(code, kind):
    """vLLM reports a dead engine so, under status 200, before [DONE]."""
    error = json.dumps({"error": {"message": "EngineCore encountered an issue.", "code": code}}).encode()
    events, failure = streamed(
        sends(HEAD, b'data: {"a": 1}\n\n', b"data: " + error + b"\n\n", b"data: [DONE]\n\n")
    )
    assert events == [{"a": 1}]
    assert type(failure) is kind
    assert failure.message == "EngineCore encountered an issue."


def test_a_list_is_the_list_of_an_object():
    async def ask():
        body = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[{"a": 1}]'
        async with asking(sends(body)) as (client, _):
            return await _post(client)

    assert asyncio.run(ask()) == {"list": [{"a": 1}]}
