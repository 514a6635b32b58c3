"""The address of a served model, as `--model` gives it, and the key that is sent there."""

from __future__ import annotations

from dataclasses import dataclass

from adacd_cli.errors import ConfigurationError

KEY_VARIABLES = ("ADACD_MODEL_KEY", "ADACD_API_KEY")
"""Where the server's key is looked for, in this order; `adacd serve` guards itself with the second one."""


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        base: its address up to and including `/v1`, without a slash at the end.
        root: the same without `/v1`: what a server has besides OpenAI's routes is there.
    """

    base: str
    root: str

    @classmethod
    def parse(cls, model: str) -> Address:
        """The address that `--model` gives; `/v1` is added where it names a host alone. ConfigurationError where it
        is no http address, or there is a user or a password in it."""
        import httpx

        try:
            url = httpx.URL(model.strip())
            if not 0 < (url.port or 80) < 2**16:
                url = httpx.URL()
        except (httpx.InvalidURL, UnicodeError, ValueError):
            url = httpx.URL()
        fault, hint = "", "Write it like http://localhost:8000/v1."
        if not url.host:
            fault = "is no http address"
        elif url.userinfo:
            fault = "has a user or a password in it"
            hint = f"Leave it out, and put a key into the environment variable {KEY_VARIABLES[0]}."
        elif url.query or url.fragment:
            fault = "goes on after its path"
        if fault:
            raise ConfigurationError(f"The model's address {fault}: {_without_secrets(model)!r}.", hint)
        path = url.path.rstrip("/")
        for route in ("/chat/completions", "/completions", "/models"):  # which many copy along
            path = path.removesuffix(route)
        root = str(url.copy_with(path=path.removesuffix("/v1").rstrip("/") or "/")).rstrip("/")
        return cls(f"{root}/v1", root)


def _without_secrets(model: str) -> str:
    scheme, slashes, rest = model.strip().partition("//")
    host, slash, path = rest.partition("/")
    return scheme + slashes + host.rpartition("@")[2] + slash + path.partition("?")[0].partition("#")[0]
