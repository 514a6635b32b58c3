"""What goes over the wire to a judge's endpoint and comes back: addresses, headers, and how a reply is read.

What it has in common with other servers is in `adacd_cli.http_util`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from adacd_cli import http_util
from adacd_cli.errors import UsageError

OPENAI_URL = "https://api.openai.com/v1"


class RequestFailed(Exception):
    """One request failed for good, and the next one may not.

    Args:
        reason: what happened, as the end of a sentence without its full stop; it holds no key.
        unreachable: no connection could be made at all.
        rejected: the endpoint read the request and does not take it.
    """

    def __init__(self, reason: str, *, unreachable: bool = False, rejected: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.unreachable, self.rejected = reason, unreachable, rejected


def parse_url(url: str) -> httpx.URL:
    """An endpoint's base address; `/chat/completions` at its end, which many copy along, is taken off.

    Raises:
        UsageError: it is no http(s) address.
    """
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, UnicodeError):
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(
            f"The judge's address is no http address: {url!r}.", "Write it like http://localhost:8000/v1."
        )
    path = parsed.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parsed.copy_with(path=path or "/", fragment=None)


def headers_for(key: str | None) -> dict[str, str]:
    """The headers of every request.

    Raises:
        UsageError: the key has characters that no header carries.
    """
    return http_util.headers_for(key, whose="judge", variable="ADACD_JUDGE_KEY")


def reply_of(answer: Mapping[str, Any]) -> str:
    """The text of a chat completion; "" where the model said nothing.

    Raises:
        RequestFailed: it is no chat completion.
    """
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise RequestFailed("its response is no chat completion") from None
    if isinstance(content, list):  # in parts, as some servers send it
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
