"""`adacd serve`: an OpenAI-compatible server over the model, with a page to try it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from adacd_cli.cli.batching import batch_size_of
from adacd_cli.cli.errors import show_error, shows_tracebacks
from adacd_cli.cli.options import with_settings
from adacd_cli.cli.running import load_model, progress_line, warn
from adacd_cli.cli.serving import address_of, bytes_of, id_of, key_of, origins_of, require_extra
from adacd_cli.config import Resolved, Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.config.refusals import check_complete
from adacd_cli.errors import UsageError

if TYPE_CHECKING:
    from adacd_cli.cli.batching import BatchSize
    from adacd_cli.engine import LanguageModel, Places
    from adacd_cli.server.asked import Limits

_LOCAL = ("127.0.0.1", "localhost", "::1")

_USUAL_PROMPT = 4096
"""Tokens that --batch-size auto makes room for where no limit is given."""


@with_settings(omit=("display", "stats"), one_method=False)
def command(
    resolved: Resolved,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Listen here (default 127.0.0.1: this machine alone)."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="And on this port; 0 is a free one (default 8000)."
        ),
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", metavar="KEY", help="Ask for this key; ADACD_API_KEY says it unseen by others."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", metavar="ORIGIN", help="Let pages of this origin ask; * is any; repeatable."
        ),
    ] = None,
    model_id: Annotated[
        str | None,
        typer.Option("--model-id", metavar="NAME", help="The model's id for clients (default: its name)."),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size",
            metavar="N|auto",
            help="Requests decoded at once; auto (default) is as many as memory has room for.",
        ),
    ] = "auto",
    queue: Annotated[
        int,
        typer.Option("--queue", metavar="N", min=0, help="Requests that may wait for a place (default 64)."),
    ] = 64,
    max_body_size: Annotated[
        str, typer.Option("--max-body-size", metavar="SIZE", help="Largest body, such as 512k (default 4m).")
    ] = "4m",
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-prompt-tokens", metavar="N", min=1, help="Longest prompt (default: what the model takes)."
        ),
    ] = None,
    max_answer_tokens: Annotated[
        int | None,
        typer.Option("--max-answer-tokens", metavar="N", min=1, help="Longest answer that may be asked for."),
    ] = None,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            "--max-seconds",
            metavar="S",
            min=0.1,
            max=1e6,
            help="End an answer after this long, waiting included.",
        ),
    ] = None,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and answers to stderr too.")
    ] = False,
) -> None:
    """Serve the model to OpenAI's clients, and a page at /."""
    settings = resolved.settings
    check_complete(settings)
    require_extra()
    from adacd_cli.server.app import create_app
    from adacd_cli.server.asked import Limits
    from adacd_cli.server.metrics import Metrics
    from adacd_cli.server.run import Http, Signals, handled, listen, run
    from adacd_cli.server.served import Served
    from adacd_cli.server.worker import Worker

    key = key_of(api_key)
    os.environ.pop("ADACD_API_KEY", None)  # it guards this server, and is no business of a model's at another
    if model_id is not None and not model_id.strip():
        raise UsageError("--model-id is empty.", "Leave it out for the model's own name.")
    at_once = batch_size_of(batch_size)
    limits = Limits(max_prompt_tokens, max_answer_tokens, bytes_of(max_body_size), max_seconds)
    served = Served(
        settings,
        model_id or id_of(settings),
        limits,
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
        warn([f"Whoever reaches {address} can use this server: give it an --api-key."], settings)
    metrics = Metrics()
    worker = Worker(metrics, waiting=queue, seconds=max_seconds)
    signals = Signals(worker, lambda: _say("Stopping once what was asked is answered.", settings))
    http = Http(create_app(served, worker, metrics), listening)

    def begin() -> tuple[LanguageModel, Places]:
        model = _load(settings)
        places = _places(model, settings, at_once, limits)
        if model_id is None:  # a server that was not told which of its models is meant has chosen one
            facts: dict[str, str] = getattr(model, "served_facts", dict)()
            served.model_id = id_of(settings, facts.get("served_model"))
        return model, places

    def ready(places: Places) -> None:
        _say(f"{served.model_id} · {settings.method_label} · {places.limit} at once", settings)
        _say(f"Serving {address}/v1, and a page at {address}/", settings)

    def broken(error: BaseException) -> int:
        code = show_error(error)
        _say("Every request is refused from now on; start the server again.", settings)
        return code

    with handled(signals):
        code = run(http, worker, served, signals, begin, ready, broken)
    raise typer.Exit(code)


def _load(settings: Settings) -> LanguageModel:
    """The model, with what every method needs that the settings name something for."""
    model = load_model(settings, for_long=True)
    needy = [
        name
        for name, method in METHODS.items()
        if method.resource and getattr(settings, method.resource) is not None
    ]
    from adacd_cli.loading import load_extras

    with progress_line(settings) as progress:
        loaded = load_extras(model, settings, methods=needy, progress=progress)
    warn(loaded.warnings[len(model.warnings) :], settings)
    return loaded


def _places(model: LanguageModel, settings: Settings, batch_size: BatchSize, limits: Limits) -> Places:
    """How many requests run at once, sized by the longest that may come, or by a usual one."""
    from adacd_cli.engine import Request
    from adacd_cli.loading.speed import places_for
    from adacd_cli.prompts import Prompt, Prompts

    prompt = limits.prompt_tokens or min(model.context_length or _USUAL_PROMPT, _USUAL_PROMPT)
    prompts = Prompts({"unprompted": Prompt((0,) * prompt)})
    return places_for(model, [Request(prompts, settings)], batch_size)


def _say(line: str, settings: Settings) -> None:
    if not settings.quiet:
        print(line, file=sys.stderr, flush=True)
