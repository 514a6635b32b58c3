"""load: settings -> LanguageModel, from a server or into this process, with what the method needs besides."""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

from adacd_cli.config.refusals import check_complete, refuse_misplaced
from adacd_cli.config.resolve import LOADING, changed
from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.loading.extras import load_extras
from adacd_cli.loading.local import load_local

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel


def load(
    settings: Settings | str | PathLike[str] | None = None,
    *,
    progress: Callable[[str], None] = lambda line: None,
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
    from adacd_cli.profiles.store import with_profile

    if settings.served:
        from adacd_cli.loading.served import load_served

        return with_profile(load_served(settings, progress), settings)
    loaded = with_profile(load_local(settings, progress, for_long=for_long), settings)
    return load_extras(loaded, settings, progress=progress)
