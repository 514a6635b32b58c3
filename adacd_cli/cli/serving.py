"""The values of `adacd serve`'s flags: the key, origins, sizes, the model's id, the address."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from adacd_cli.config import Settings
from adacd_cli.errors import MissingExtraError, UsageError

_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def require_extra() -> None:
    """Checks that the packages of the extra are installed.

    Raises:
        MissingExtraError: one of them is not.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            raise MissingExtraError(
                f"`adacd serve` needs {package}, which is not installed.", "pip install 'adacd[serve]'"
            )


def key_of(given: str | None) -> str | None:
    """The key that clients must send; None where there is none.

    Args:
        given: by --api-key; None reads ADACD_API_KEY.

    Raises:
        UsageError: it is empty, which would be no key, or cannot be sent in a header.
    """
    key = os.environ.get("ADACD_API_KEY") if given is None else given
    if key is None or (key and key.isascii() and key.isprintable() and " " not in key):
        return key
    where = "ADACD_API_KEY" if given is None else "--api-key"
    raise UsageError(
        f"The key of {where} must be one or more visible ASCII characters.",
        "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'",
    )


def origins_of(given: list[str]) -> tuple[str, ...]:
    """The origins of --cors-origin, as browsers write them.

    Raises:
        UsageError: one of them is not an origin.
    """
    for origin in given:
        scheme, mark, rest = origin.rstrip("/").partition("://")
        if origin not in ("*", "null") and not (mark and scheme and rest and "/" not in rest):
            raise UsageError(
                f"--cors-origin takes the origin of a page; got {origin!r}.",
                "Write e.g. --cors-origin http://localhost:3000.",
            )
    return tuple(origin.rstrip("/").lower() for origin in given)


def bytes_of(text: str) -> int:
    """The bytes of --max-body-size.

    Raises:
        UsageError: it is not a number of bytes.
    """
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in _UNITS else (text, "")
    if number.isascii() and number.isdecimal() and int(number) > 0:
        return int(number) * _UNITS.get(unit, 1)
    raise UsageError(
        f"--max-body-size takes a number of bytes; got {text!r}.", "Write e.g. 500000, 512k or 4m."
    )


def id_of(settings: Settings, served: str | None = None) -> str:
    """The model's name for clients: of a path, the last part alone.

    Args:
        settings: name the model.
        served: its name at the server that runs it, where one does.
    """
    from adacd_cli.loading.files import looks_like_a_path

    name = served or getattr(settings, "served_model", None) or settings.model
    path = Path(name).expanduser()
    if name != "demo" and (path.exists() or looks_like_a_path(name)):
        return path.resolve().name or "model"
    return str(name)


def address_of(host: str, port: int) -> str:
    """The address for a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
