"""Requests to other people's servers (`backends.server`, `evaluation.judges`): headers, and how a response is read.
A server may send anything, so nothing is assumed about the form of what it sends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from adacd_cli.errors import UsageError


def headers_for(key: str | None, *, whose: str, variable: str) -> dict[str, str]:
    """The headers of every request, with the key, if any, as a bearer token. UsageError, which names WHOSE key it
    is and the environment variable that it comes from, where it has characters that cannot stand in a header."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise UsageError(
                f"The {whose}'s key has characters that cannot be sent.",
                f"Set the environment variable {variable} to the key alone.",
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def key_of_environment(variables: Iterable[str]) -> str | None:
    """The first of the environment variables that is set to more than white space; None without one."""
    return next(filter(None, (os.environ.get(name, "").strip() for name in variables)), None)


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
    """A field of an error: OpenAI's {"error": {"message": …, "param": …}}; "" where it is not there. The message is
    also found in {"error": "text"}, FastAPI's {"detail": …} and vLLM's {"message": …}."""
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


def one_line(text: str) -> str:
    """A server's message without control characters, and at most 200 characters of it."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:200]
