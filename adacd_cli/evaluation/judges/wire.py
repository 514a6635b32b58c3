"""What goes over the wire to an endpoint and comes back: addresses, headers, and how a response is read.

Functions over what someone else's server sends, so nothing is taken for granted of its shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

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
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise UsageError(
                "The judge's key has characters that cannot be sent.",
                "Set the environment variable ADACD_JUDGE_KEY to the key alone.",
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def retry_seconds(text: str) -> float:
    """A Retry-After as seconds from now; it is a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    text = text.strip()
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text, re.ASCII):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; None where it is something else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # not UTF-8 is a ValueError too
        return None
    return value if isinstance(value, dict) else None


def error_field(answer: Mapping[str, Any] | None, field: str) -> str:
    """A field of an error: OpenAI's {"error": {"message": …, "param": …}}; "" where it is not there.

    The message is also found in {"error": "text"}, FastAPI's {"detail": …} and vLLM's {"message": …}.
    """
    fields = answer or {}
    error = fields.get("error")
    value: Any = None
    if isinstance(error, dict):
        value = error.get(field)
    elif field == "message":
        value = error or fields.get("detail") or fields.get("message")
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


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


def one_line(text: str) -> str:
    """What a server says, without control characters and not longer than a sentence."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:200]
