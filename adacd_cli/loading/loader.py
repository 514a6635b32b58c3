"""load and load_extras: settings -> LanguageModel, at a server or in this process, with what methods need besides.
At a server no weights are read: its model is an address and a tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHODS
from adacd_cli.config.resolve import LOADING, changed, check_complete, refuse_misplaced
from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.http_util import key_of_environment
from adacd_cli.loading.extras import LOADERS
from adacd_cli.loading.files import Source, ids_of, locate, read_once
from adacd_cli.loading.hub import go_offline
from adacd_cli.loading.local import load_local
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

PROBE_ATTEMPTS = 3  # a server that is just starting is waited for, but not long: somebody sits there


def load(
    settings: Settings | str | PathLike[str] | None = None,
    *,
    progress: Progress = lambda line: None,
    for_long: bool = False,
    **changes: Any,
) -> LanguageModel:
    """Loads a model, checks it and tries it with one token.

        model = load("Qwen/Qwen3-8B", device="cuda", dtype="bfloat16")

    Args:
        settings: the settings of the panel Model are read, and what the method needs besides the model; or
            the model's name alone: a hub id, a folder, a GGUF file, or "demo", which None stands for.
        for_long: whether so much will be decoded that compiling pays off where `compile` is None.
        **changes: settings of the panel Model by name.

    Raises:
        ModelError: the model cannot be found, read or used, or is no causal language model.
        DeviceError: there is no such device here.
        MissingExtraError: an optional package is needed; the hint is the pip command.
        OutOfMemoryError: the weights do not fit.
        ConfigurationError: `quantize` is asked for a model that is quantised already, the method lacks what
            has to be loaded for it, or a setting is unknown, out of range, or cannot be set here.
    """
    if isinstance(settings, (str, PathLike)):
        if "model" in changes:
            raise ConfigurationError("load() is given two models.", "Leave one of them out.")
        # a bare word is a hub id as text, and a folder as a path
        changes["model"] = settings if isinstance(settings, str) else os.path.abspath(settings)
        settings = None
    settings = changed(settings or Settings(), changes, LOADING, "load()")
    refuse_misplaced(settings, changes)
    check_complete(settings)
    if settings.served:
        loaded = _load_served(settings, progress)
    else:
        loaded = load_local(settings, progress, for_long=for_long)
    # torch comes with it, which a wrong name need not wait for
    from adacd_cli.profiles.store import with_profile

    loaded = with_profile(loaded, settings)
    return loaded if settings.served else load_extras(loaded, settings, progress=progress)


def load_extras(
    model: LanguageModel,
    settings: Settings,
    *,
    methods: Iterable[str] | None = None,
    progress: Progress = lambda line: None,
) -> LanguageModel:
    """The model with everything that the methods need (None: the settings' own), as `expert`, `draft` and
    `direction` name it; what it has already is not loaded again. ConfigurationError where a method needs what the
    model's backend cannot do; ModelError where something cannot be found, read, or does not fit; MissingExtraError
    where an optional package is needed, the hint being the pip command."""
    for name in (settings.effective_method,) if methods is None else methods:
        model.check_method(METHODS[name])
        resource = METHODS[name].resource
        value = getattr(settings, resource) if resource else None
        if resource and value is not None and (key := (resource, value)) not in model.extras:
            progress(f"Loading {resource}")
            loaded, length, warnings = LOADERS[resource](model, value, settings, progress)
            lengths: dict[tuple[str, str], int] = {} if length is None else {key: length}
            model = replace(
                model,
                extras={**model.extras, key: loaded},
                context_lengths={**model.context_lengths, **lengths},
                warnings=(*model.warnings, *warnings),
            )
    return model


def _load_served(settings: Settings, progress: Progress) -> LanguageModel:
    from adacd_cli.backends.server.client import ATTEMPTS, KEY_VARIABLES, Address, Client

    address = Address.parse(settings.model)
    if settings.tokenizer is None:
        hint = "Name it with --tokenizer: a hub id, a folder or a GGUF file. No weights are read."
        raise ConfigurationError(f"The model at {address.base} needs a tokenizer here.", hint)
    if settings.offline:
        go_offline()
    progress("Loading tokenizer")
    tokenizer, source, ends = load_own_tokenizer(settings, progress)
    progress("Asking the server")
    from adacd_cli.backends.server.server import Server, examine  # torch comes with these
    from adacd_cli.engine.model import LanguageModel

    client = Client(address, key_of_environment(KEY_VARIABLES), PROBE_ATTEMPTS)
    server = Server(client, partial(examine, client, settings.served_model, tokenizer))
    client.attempts = ATTEMPTS
    probe = server.probe
    if probe.end_token in (known := tokenizer.get_vocab()):
        ends |= {known[probe.end_token]}
    return LanguageModel(
        model=None,
        tokenizer=tokenizer,
        name=address.base,
        revision=source.revision,
        eos_ids=frozenset(ends),
        context_length=probe.context_length,
        warnings=(*source.warnings, *probe.warnings),
        server=server,
    )


def load_own_tokenizer(settings: Settings, progress: Progress) -> tuple[Any, Source, set[int]]:
    """The tokenizer that `settings.tokenizer` names, its files, and the ids that end an answer. ModelError where it
    cannot be read; MissingExtraError where the package that reads a GGUF file is not installed."""
    assert settings.tokenizer is not None
    source = locate(settings.model_copy(update={"model": settings.tokenizer}), progress, weights=False)
    from adacd_cli.loading.hardware import require  # torch and transformers come with these
    from adacd_cli.loading.pretrained import load_tokenizer

    if source.gguf:
        require(("gguf",), "A GGUF file")
    with read_once() if source.gguf else nullcontext():
        tokenizer = load_tokenizer(source, settings.tokenizer, trust_remote_code=settings.trust_remote_code)
    ends = set(ids_of(tokenizer.eos_token_id))
    for name in ("generation_config.json", "config.json") if source.gguf is None else ():
        try:
            values = json.loads((source.folder / name).read_text(encoding="utf-8"))
            ends |= set(ids_of(values.get("eos_token_id")))
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # the server ends answers by its own copy as well
    return tokenizer, source, ends
