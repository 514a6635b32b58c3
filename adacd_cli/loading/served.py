"""load_served: an address and a tokenizer -> a model that decodes at the server. No weights are read."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from adacd_cli.backends.server.client import KEY_VARIABLES, Address
from adacd_cli.config import Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.http_util import key_of_environment
from adacd_cli.loading.files import Source, ids_of, locate, read_once
from adacd_cli.loading.hub import go_offline
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

PROBE_ATTEMPTS = 3  # a server that is just starting is waited for, but not long: somebody sits there


def load_served(settings: Settings, progress: Progress) -> LanguageModel:
    """The model at an address, probed for what it can do. ConfigurationError where the address cannot be used, or
    no tokenizer is named; ModelError where there is no such server or tokenizer, or they do not fit."""
    from adacd_cli.backends.server.client import ATTEMPTS, Client
    from adacd_cli.backends.server.probe import examine
    from adacd_cli.backends.server.server import Background, Server
    from adacd_cli.engine.model import LanguageModel

    address = Address.parse(settings.model)
    if settings.tokenizer is None:
        hint = "Name it with --tokenizer: a hub id, a folder or a GGUF file. No weights are read."
        raise ConfigurationError(f"The model at {address.base} needs a tokenizer here.", hint)
    if settings.offline:
        go_offline()
    progress("Loading tokenizer")
    tokenizer, source, ends = load_own_tokenizer(settings, progress)
    progress("Asking the server")
    client = Client(address, key_of_environment(KEY_VARIABLES), PROBE_ATTEMPTS)
    background = Background()
    try:
        dialect, probe = background.run(examine(client, settings.served_model, tokenizer))
    except BaseException:
        background.stop(client.close())
        raise
    client.attempts = ATTEMPTS
    if probe.end_token in (known := tokenizer.get_vocab()):
        ends |= {known[probe.end_token]}
    vocab = probe.vocab or 1 + max(known.values())
    return LanguageModel(
        model=None,
        tokenizer=tokenizer,
        name=address.base,
        revision=source.revision,
        eos_ids=frozenset(ends),
        context_length=probe.context_length,
        warnings=(*source.warnings, *probe.warnings),
        server=Server(background, client, dialect, probe, vocab),
    )


def load_own_tokenizer(settings: Settings, progress: Progress) -> tuple[Any, Source, set[int]]:
    """The tokenizer that `settings.tokenizer` names, where its files are, and the ids that end an answer.
    ModelError where there is none, or it cannot be read; MissingExtraError where the package that reads a GGUF file
    is not installed."""
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
