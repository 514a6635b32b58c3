"""The address that `--ray` takes, and whether a Ray cluster can be behind it. Needs no Ray.

Ray itself waits two minutes for a head node that is not there, so the address is tried first; whether it is
Ray that answers, joining finds out in ten seconds.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from adacd_cli.errors import EnvironmentFault, UsageError

ANSWER_S = 8.0
"""Seconds that an address has to answer."""

CLIENT_PORT = 10001
"""Port of `ray://` where none is given, Ray's own default."""

_SEARCHED = ("", "auto", "local")


@dataclass(frozen=True, slots=True)
class Address:
    """Where Ray is.

    Attributes:
        text: as Ray takes it; "" is a running cluster of this machine if there is one, else a new one.
        host, port: what to try; "" and 0 where Ray itself looks.
    """

    text: str
    host: str = ""
    port: int = 0

    @property
    def through_client(self) -> bool:
        """Whether this process stays outside the cluster (`ray://`)."""
        return self.text.startswith("ray://")


def parse_address(text: str) -> Address:
    """The address of `--ray`: "" (nothing given), auto, local, HOST:PORT or ray://HOST[:PORT].

    Where nothing is given, or auto, RAY_ADDRESS decides if it is set, as for every program with Ray, and then what
    `ray start` wrote down on this machine. That cluster may have died: where nothing is given, and it does not
    answer, a new one is started. UsageError where it is none of these.
    """
    own = os.environ.get("RAY_ADDRESS", "").strip()
    if text in ("", "auto") and own not in _SEARCHED:
        return _parse(own, "RAY_ADDRESS")
    if text in ("", "auto") and (started := _started_here()):
        address = _parse(started, "Ray's file ray_current_cluster")
        try:
            if text == "":
                check_answers(address, within=ANSWER_S / 2)
        except EnvironmentFault:
            return Address("local")
        return address
    return _parse(text, "--ray")


def _started_here() -> str:
    """The address of the cluster that `ray start` began here last; "" if there is none or it was stopped."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _parse(text: str, where: str) -> Address:
    if text in _SEARCHED:
        return Address(text)
    wrong = UsageError(
        f"{where} takes auto, local, HOST:PORT or ray://HOST:PORT; got {text!r}.",
        "Ray prints its address when the head node is started, e.g. --ray 10.0.0.5:6379.",
    )
    client = text.startswith("ray://")
    try:
        parts = urlsplit(f"//{text.removeprefix('ray://')}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if client and port is None:
        port = CLIENT_PORT
    plain = not (parts.path or parts.query or parts.fragment or parts.username or parts.password)
    if not host or not port or not plain or any(sign.isspace() for sign in text):
        raise wrong
    joined = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(f"ray://{joined}" if client else joined, host, port)


def check_answers(address: Address, *, within: float = ANSWER_S) -> None:
    """Tries the address.

    Args:
        within: seconds it has.

    Raises:
        EnvironmentFault: nothing answers there.
    """
    if not address.host:
        return
    try:
        socket.create_connection((address.host, address.port), timeout=within).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be a host's
        raise EnvironmentFault(
            f"No Ray cluster answers at {address.text}: {_why(error, within)}.",
            "Run `ray status` on the head node to see if Ray runs there; --ray alone uses this machine.",
        ) from error


def _why(error: OSError | UnicodeError, within: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {within:g} s"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "that is not a host name"
