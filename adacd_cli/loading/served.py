"""load_served: an address and a tokenizer -> a model that decodes at the server. No weights are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.backends.server.address import Address, key_of_environment
from adacd_cli.errors import ConfigurationError
from adacd_cli.loading.hub import go_offline

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.loading.source import Source

PROBE_ATTEMPTS = 3
"""A server that is just starting is waited for, but not long: somebody sits there."""


def load_served(settings: Settings, progress: Callable[[str], None]) -> LanguageModel:
    """The model at `settings.model`, an address, looked over.

    Args:
        settings: `served_model`, `tokenizer`, `revision`, `trust_remote_code` and `offline` are read.
        progress: told in short lines what is being done.

    Raises:
        ConfigurationError: the address cannot be used, or no tokenizer is named.
        ModelError: there is no such server or tokenizer, or they do not fit.
    """
    address = Address.parse(settings.model)
    if settings.tokenizer is None:
        raise ConfigurationError(
            f"The model at {address.base} needs a tokenizer here.",
            "Name it with --tokenizer: a hub id, a folder or a GGUF file. No weights are read.",
        )
    if settings.offline:
        go_offline()
    progress("Loading tokenizer")
    tokenizer, source, ends = tokenizer_of(settings, progress)
    progress("Asking the server")
    return _connect(settings, address, tokenizer, source, ends)


def tokenizer_of(settings: Settings, progress: Callable[[str], None]) -> tuple[Any, Source, frozenset[int]]:
    """The tokenizer that `settings.tokenizer` names, where its files are, and the ids that end an answer.

    Raises:
        ModelError: there is none, or it cannot be read.
        MissingExtraError: the package that reads a GGUF file is not installed.
    """
    from adacd_cli.loading.gguf import read_once
    from adacd_cli.loading.quantization import require
    from adacd_cli.loading.source import locate
    from adacd_cli.loading.tokenizer import load_tokenizer

    assert settings.tokenizer is not None
    own = settings.model_copy(update={"model": settings.tokenizer})
    source = locate(own, progress, weights=False)
    if source.gguf:
        require(("gguf",), "A GGUF file")
        with read_once():
            tokenizer = load_tokenizer(
                source, settings.tokenizer, trust_remote_code=settings.trust_remote_code
            )
    else:
        tokenizer = load_tokenizer(source, settings.tokenizer, trust_remote_code=settings.trust_remote_code)
    return tokenizer, source, _ends(tokenizer, source.folder if source.gguf is None else None)


def _ends(tokenizer: Any, folder: Path | None) -> frozenset[int]:
    """Every id that the tokenizer or a generation_config.json beside it names as an end."""
    import json

    from adacd_cli.loading.tokenizer import ids_of

    found = set(ids_of(tokenizer.eos_token_id))
    for name in ("generation_config.json", "config.json"):
        if folder is not None and (folder / name).exists():
            try:
                values = json.loads((folder / name).read_text(encoding="utf-8"))
                found |= set(ids_of(values.get("eos_token_id")))
            except (OSError, ValueError, AttributeError, TypeError):
                continue  # the server ends answers by its own copy as well
    return frozenset(found)


def _connect(
    settings: Settings, address: Address, tokenizer: Any, source: Source, ends: frozenset[int]
) -> LanguageModel:
    from adacd_cli.backends.server.client import ATTEMPTS, Client
    from adacd_cli.backends.server.probe import examine
    from adacd_cli.backends.server.server import Background, Server
    from adacd_cli.engine.model import LanguageModel

    client = Client(address, key_of_environment(), PROBE_ATTEMPTS)
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
        eos_ids=ends,
        context_length=probe.context_length,
        warnings=(*source.warnings, *probe.warnings),
        server=Server(background, client, dialect, probe, vocab),
    )
