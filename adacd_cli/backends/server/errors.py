"""What can go wrong with a request to a server, and httpx's errors by these names.

No message holds the key. `ServerRefused` is final; what a `ServerUnavailable` is about may work later.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

# how long a connection may take, and how often one is tried for that takes longer
CONNECT_SECONDS, CONNECT_ATTEMPTS = 10.0, 2
START_IT = "Start it, or check the address and the port."
RAW_LOGPROBS = "Start vLLM with --logprobs-mode raw_logprobs, and without post-processing of them."
OWN_TOKENIZER = "Name the served model's own with --tokenizer: a hub id, its folder or its GGUF file."
_IS_PLAIN = "write http:// in the address if the server has no TLS."
_NO_AUTHORITY = "Name the file of its certificate authority in the environment variable SSL_CERT_FILE."


@dataclass(eq=False)
class ServerRefused(Exception):
    """The server does not accept a request, or its response cannot be used."""

    reason: str  # what happened, as the end of a sentence without its full stop
    status: int = 0  # HTTP status of the response; 0 where none came
    message: str = ""
    hint: str = ""  # what to do about it; empty where nothing better is known than the caller's own hint


@dataclass(eq=False)
class InvalidLogprobs(ServerRefused):
    """The server gives values that are no log-probabilities of the model's tokens."""

    hint: str = RAW_LOGPROBS


@dataclass(eq=False)
class ServerUnavailable(ServerRefused):
    """What may be over at the next attempt: no connection, a broken one, or a server that is busy; `wait` is how
    many seconds it asks to wait before that, and `worth` how many attempts may be made."""

    wait: float = 0.0
    worth: int = 100


@dataclass(eq=False)
class ReadTimeout(ServerUnavailable):
    """The server accepted the request and then sent nothing."""

    worth: int = 1


@contextmanager
def named(clean: Callable[[str], str], *, secure: bool) -> Iterator[None]:
    """Gives httpx's errors our names; none of them holds the request, whose headers have the key in them. `clean`
    removes what nobody may see; `secure` tells whether the address is one of https."""
    try:
        yield
    except httpx.ConnectTimeout:
        raise ServerUnavailable(
            f"no connection within {CONNECT_SECONDS:g} s",
            worth=1 if secure else CONNECT_ATTEMPTS,  # a server without TLS waits for the rest of a line
            hint=f"{START_IT.removesuffix('.')}; {_IS_PLAIN}" if secure else "",
        ) from None
    except httpx.TimeoutException:
        raise ReadTimeout("it sent nothing for too long") from None
    except (httpx.ConnectError, httpx.ProxyError) as error:
        reason = clean(str(error)) or "there is no connection"
        tls: BaseException | None = error
        while tls is not None and not isinstance(tls, ssl.SSLError):
            tls = tls.__cause__ or tls.__context__
        if tls is None:
            raise ServerUnavailable(reason) from None
        certificate = isinstance(tls, ssl.SSLCertVerificationError)
        hint = _NO_AUTHORITY if certificate else f"{_IS_PLAIN[0].upper()}{_IS_PLAIN[1:]}"
        raise ServerUnavailable(f"there is no secure connection: {reason}", worth=1, hint=hint) from None
    except httpx.HTTPError as error:
        what = clean(str(error)) or type(error).__name__
        raise ServerUnavailable(f"the connection broke: {what}") from None
