"""Settings that are each valid and do not go together: each refusal names them and what to leave out."""

from __future__ import annotations

from collections.abc import Collection

from adacd_cli.config.methods import METHODS
from adacd_cli.config.settings import SETTINGS, Settings
from adacd_cli.errors import ConfigurationError

_OF_SERVERS: tuple[str, ...] = ("served_model", "tokenizer")
_OF_WEIGHTS = ("engine", "device", "dtype", "quantize", "threads", "gpu_layers", "context", "compile")


def check_complete(settings: Settings, where: str = "") -> None:
    """Raises ConfigurationError where the method of a run lacks what has to be loaded for it, and has no
    stand-in; `where`, what chose the method, such as `/method`, is for the hint."""
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(settings, method.resource) is None:
        needed = SETTINGS[method.resource]
        flag = f"/set {needed.name}" if where.startswith("/") else needed.flag
        raise ConfigurationError(
            f"Method {method.name} needs `{needed.name}`.",
            f"Give {flag} {needed.name.upper()}. {needed.sentence}",
        )


def refuse_idle(
    settings: Settings, given: Collection[str], method_from: str = "", *, resources: bool = False
) -> None:
    """Raises ConfigurationError for a gate that has no effect, and with `resources`, where the method is the only
    one that the run decodes by, for what only another method would load; as far as they are GIVEN for this run: one
    of a file is for the methods that use it. `method_from` is where the method was chosen; "" leaves that out of
    the message."""
    others = [method for method in METHODS.values() if method.name != settings.effective_method]
    idle: dict[str, str] = {
        method.resource: method.name
        for method in others
        if resources and method.resource and getattr(settings, method.resource) is not None
    }
    gated = settings.method in ("adacd", "adacd-gated")
    if not gated if settings.gate else settings.method == "adacd-gated":
        idle = {"gate": "adacd"} | idle
    for name in idle:
        if name in given:
            message = f"`{name}` is for method {idle[name]}; the method is {settings.method}"
            if method_from:
                raise ConfigurationError(f"{message} (from {method_from}).", "Leave one of them out.")
            raise ConfigurationError(f"{message}.", f"Choose --method {idle[name]}, or leave it out.")


def refuse_misplaced(settings: Settings, given: Collection[str]) -> None:
    """Raises ConfigurationError for what only a model on a server, or only one loaded here, can use."""
    names, what = _OF_SERVERS, f"a model on a server, and the model is {settings.model!r}"
    hint = "Leave it out, or give the server's address as the model, like http://localhost:8000/v1."
    if settings.served:
        names, what = _OF_WEIGHTS, "weights that adacd loads itself, and the model runs on a server"
        hint = "Leave it out, and give the server its own when you start it."
    for name in names:
        if name in given:
            raise ConfigurationError(f"`{name}` is for {what}.", hint)


def refuse_password(settings: Settings, where: str) -> None:
    """Raises ConfigurationError for a user or a password in the model's address, which came from WHERE, before it
    is shown or written into a run's record."""
    if settings.served and "@" in settings.model.partition("//")[2].partition("/")[0]:
        raise ConfigurationError(
            f"`model` holds a user or a password in its address (from {where}).",
            "Leave them out of it, and put a key into the environment variable ADACD_MODEL_KEY.",
        )
