"""How much of a response is read: a server may send without an end."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx

from adacd_cli.remote.failures import ServerRefused

LARGEST = 64_000_000
"""Bytes of a response, or of a line of a stream, that are read: a whole vocabulary takes some 20 MB."""


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    """The lines of a stream, and blank ones between them; httpx's own are of any length.

    Raises:
        ServerRefused: one is longer than anything that is asked for.
    """
    line = bytearray()
    async for chunk in response.aiter_bytes():
        *ended, rest = re.split(rb"[\r\n]", chunk)
        for piece in ended:
            yield (bytes(line) + piece).decode("utf-8", "replace")
            line.clear()
        line += rest
        if len(line) > LARGEST:
            raise ServerRefused(f"a line of its stream is longer than {LARGEST:,} bytes")
    yield line.decode("utf-8", "replace")


async def read(response: httpx.Response) -> bytes:
    """The whole body.

    Raises:
        ServerRefused: it is longer than anything that is asked for.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > LARGEST:
            raise ServerRefused(f"its response is longer than {LARGEST:,} bytes")
    return bytes(body)
