"""`adacd serve`: an OpenAI-compatible server over the model, with a page to try it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from adacd_cli.answers import BatchSize, Session, concurrency_for
from adacd_cli.cli.errors import show_error, shows_tracebacks
from adacd_cli.cli.options import batch_size_of, option, switch, with_settings
from adacd_cli.cli.running import load_model, warn, with_extras
from adacd_cli.config import Resolved, Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.config.resolve import check_complete
from adacd_cli.errors import MissingExtraError, UsageError
from adacd_cli.loading.files import looks_like_a_path
from adacd_cli.prompts import Prompt, Prompts

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel, Scheduler

_LOCAL = ("127.0.0.1", "localhost", "::1")
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}
_USUAL_PROMPT = 4096  # tokens of the prompts that --batch-size auto leaves memory for where no limit is given
_HOST = "Address to listen on (default 127.0.0.1: this machine only)."
_AT_ONCE = "Requests decoded at once; auto (default) is what fits in memory."
_BODY = "Largest body of a request, such as 512k (default 4m)."
_SECONDS = "End an answer after this long, waiting included."


@with_settings(omit=("display", "stats"), one_method=False)
def serve(
    resolved: Resolved,
    host: str = option("ADDRESS", _HOST, default="127.0.0.1"),
    port: int = option("N", "Port; 0 takes a free one (default 8000).", default=8000, min=0, max=65535),
    api_key: str | None = option("KEY", "Require this key; other users cannot see it in ADACD_API_KEY."),
    cors_origin: list[str] | None = option("ORIGIN", "Allow pages of this origin; * is any; repeatable."),
    model_id: str | None = option("NAME", "The model's id for clients (default: its name)."),
    batch_size: str = option("N|auto", _AT_ONCE, default="auto"),
    queue: int = option("N", "Requests that may wait in the queue (default 64).", default=64, min=0),
    max_body_size: str = option("SIZE", _BODY, default="4m"),
    max_prompt_tokens: int | None = option("N", "Longest prompt (default: the model's context).", min=1),
    max_answer_tokens: int | None = option("N", "Longest answer that a request may ask for.", min=1),
    max_seconds: float | None = option("S", _SECONDS, min=0.1, max=1e6),
    log_prompts: bool = switch("Write prompts and answers to stderr too.", "--log-prompts"),
) -> None:
    """Serve the model to OpenAI's clients, and a page at /."""
    settings = resolved.settings
    check_complete(settings)
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            hint = "pip install 'adacd[serve]'"
            raise MissingExtraError(f"`adacd serve` needs {package}, which is not installed.", hint)
    from adacd_cli.profiles.store import applied, chosen_method  # torch comes with it
    from adacd_cli.server.app import create_app
    from adacd_cli.server.run import Http, Signals, listen, run
    from adacd_cli.server.state import ServerState
    from adacd_cli.server.worker import Worker

    key = key_of(api_key)
    os.environ.pop("ADACD_API_KEY", None)  # it is for this server, not for another one that runs the model
    if model_id is not None and not model_id.strip():
        raise UsageError("--model-id is empty.", "Leave it out for the model's own name.")
    at_once = batch_size_of(batch_size)
    state = ServerState(
        settings,
        model_id or id_of(settings),
        max_prompt_tokens,
        max_answer_tokens,
        bytes_of(max_body_size),
        key,
        local=host if host in _LOCAL else None,
        origins=origins_of(cors_origin or []),
        log_prompts=log_prompts,
        quiet=settings.quiet,
        debug=shows_tracebacks(),
    )
    listening = listen(host, port)
    address = address_of(host, listening.getsockname()[1])
    if key is None and host not in _LOCAL:
        warn([f"Anyone who can reach {address} can use this server; set an --api-key."], settings)

    def say(line: str) -> None:
        if not settings.quiet:
            print(line, file=sys.stderr, flush=True)

    worker = Worker(queue_size=queue, seconds=max_seconds, on_notice=lambda text: warn([text], settings))
    signals = Signals(worker, lambda: say("Stopping once all requests are answered."))
    http = Http(create_app(state, worker), listening)

    def begin() -> Scheduler:
        model = load_model(settings, for_long=True, suggest=True)
        given = settings.model_dump(exclude_none=True)
        loadable = [name for name, each in METHODS.items() if each.resource in given]
        model = with_extras(model, settings, loadable)
        applied(settings, model.profile)  # refuses a method that lacks its profile
        scheduler = _scheduler(model, settings, at_once, max_prompt_tokens)
        if model_id is None:  # where no name was given, the model's server may have chosen one of its models
            facts: dict[str, str] = model.server.facts() if model.server else {}
            state.model_id = id_of(settings, facts.get("served_model"))
        state.settings = chosen_method(settings, model.profile)
        state.set_model(model)
        return scheduler

    def ready(scheduler: Scheduler) -> None:
        profile = state.model.profile if state.model and state.settings.uses_profile else None
        method = state.settings.method_label + (f" · profile {profile.name}" if profile else "")
        say(f"{state.model_id} · {method} · {scheduler.max_concurrency} at once")
        say(f"Serving {address}/v1, and a page at {address}/")

    def broken(error: BaseException) -> int:
        code = show_error(error)
        say("Every request is refused from now on; restart the server.")
        return code

    with signals.handled():
        code = run(http, worker, signals, begin, ready, broken)
    raise typer.Exit(code)


def _scheduler(model: LanguageModel, settings: Settings, at_once: BatchSize, most: int | None) -> Scheduler:
    """A scheduler for as many requests of the longest prompt that is allowed, or of a usual one, as fit."""
    from adacd_cli.engine import Request

    scheduler = Session(model, settings.prefix_cache).scheduler
    prompt = most or min(model.context_length or _USUAL_PROMPT, _USUAL_PROMPT)
    longest = Request(Prompts({"unprompted": Prompt((0,) * prompt)}), settings)
    # two: a request alone needs one slot
    scheduler.limit_to(concurrency_for(scheduler.backend, [longest] * 2, at_once))
    return scheduler


def key_of(given: str | None) -> str | None:
    """The key that clients must send, if any; UsageError where it is empty or cannot be sent in a header."""
    key = os.environ.get("ADACD_API_KEY") if given is None else given
    if key is None or (key and key.isascii() and key.isprintable() and " " not in key):
        return key
    where = "ADACD_API_KEY" if given is None else "--api-key"
    hint = "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
    raise UsageError(f"The key of {where} must be one or more visible ASCII characters.", hint)


def origins_of(given: list[str]) -> tuple[str, ...]:
    for origin in given:
        scheme, mark, rest = origin.rstrip("/").partition("://")
        if origin not in ("*", "null") and not (mark and scheme and rest and "/" not in rest):
            hint = "Write e.g. --cors-origin http://localhost:3000."
            raise UsageError(f"--cors-origin takes the origin of a page; got {origin!r}.", hint)
    return tuple(origin.rstrip("/").lower() for origin in given)


def bytes_of(text: str) -> int:
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in _UNITS else (text, "")
    if number.isascii() and number.isdecimal() and int(number) > 0:
        return int(number) * _UNITS.get(unit, 1)
    hint = "Write e.g. 500000, 512k or 4m."
    raise UsageError(f"--max-body-size takes a number of bytes; got {text!r}.", hint)


def id_of(settings: Settings, served: str | None = None) -> str:
    """The model's name for clients: `served` at the server that runs it; of a path, the last part alone."""
    name = served or getattr(settings, "served_model", None) or settings.model
    path = Path(name).expanduser()
    if name != "demo" and (path.exists() or looks_like_a_path(name)):
        return path.resolve().name or "model"
    return str(name)


def address_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
