"""What a method needs besides the model: an expert's adapter, a draft model, a stored direction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adacd_cli.config.methods import METHODS
from adacd_cli.errors import ModelError
from adacd_cli.loading.local import load_local

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine.model import LanguageModel


def load_extras(
    model: LanguageModel,
    settings: Settings,
    *,
    methods: Iterable[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> LanguageModel:
    """The model with everything that the methods need; what it has already is not loaded again.

    Args:
        model: a loaded model.
        settings: `expert`, `draft` and `direction` name what to load.
        methods: names of methods; None is the settings' own.
        progress: told in short lines what is being done.

    Raises:
        ConfigurationError: a method needs what the model's engine does not give.
        ModelError: something cannot be found, read, or does not fit the model.
        MissingExtraError: an optional package is needed; the hint is the pip command.
    """
    for name in (settings.effective_method,) if methods is None else methods:
        model.check_method(METHODS[name])
        resource = METHODS[name].resource
        value = getattr(settings, resource) if resource else None
        if resource and value is not None and (resource, value) not in model.extras:
            progress(f"Loading {resource}")
            model = _LOADERS[resource](model, value, settings, progress)
    return model


def _with_expert(
    model: LanguageModel, path: str, settings: Settings, progress: Callable[[str], None]
) -> LanguageModel:
    from adacd_cli.loading.expert import load_expert

    if any(resource == "expert" for resource, _ in model.extras):
        raise ModelError("Another expert is loaded already.", "Start anew with the --expert you want.")
    view, warnings = load_expert(model, path)
    return replace(
        model,
        warnings=(*model.warnings, *warnings),
        extras={**model.extras, ("expert", path): view},
    )


def _with_draft(
    model: LanguageModel, name: str, settings: Settings, progress: Callable[[str], None]
) -> LanguageModel:
    own: dict[str, Any] = {"model": name, "method": "default", "revision": None, "quantize": None}
    own |= {"gate": False, "context": None, "engine": model.engine}
    draft = load_local(settings.model_copy(update=own), progress, for_long=False)
    mine, theirs = (each.tokenizer.get_vocab() for each in (model, draft))
    if mine != theirs:
        token = next(iter(sorted(mine.keys() ^ theirs.keys())), None)
        what = "the ids differ" if token is None else f"{token!r} is in one of them only"
        raise ModelError(
            f"The vocabularies of {model.name} and its draft {name} differ: {what}.",
            "Method ssd needs a draft with the model's own tokenizer.",
        )
    limit = {} if draft.context_length is None else {("draft", name): draft.context_length}
    return replace(
        model,
        warnings=(*model.warnings, *(f"Draft: {warning}" for warning in draft.warnings)),
        extras={**model.extras, ("draft", name): draft.model},
        context_lengths={**model.context_lengths, **limit},
    )


def _with_direction(
    model: LanguageModel, folder: str, settings: Settings, progress: Callable[[str], None]
) -> LanguageModel:
    from adacd_cli.backends.torch.views import AblatedView
    from adacd_cli.loading.direction import read_direction

    hidden_size = model.model.config.get_text_config(decoder=True).hidden_size
    vector, card = read_direction(folder, hidden_size)
    warnings = model.warnings
    if card.model != model.name:
        warnings += (f"The direction in {folder} was made with {card.model}, not with {model.name}.",)
    views = {("direction", folder): AblatedView(model.model, vector)}
    return replace(model, warnings=warnings, extras={**model.extras, **views})


_LOADERS: dict[str, Callable[[LanguageModel, str, Settings, Callable[[str], None]], LanguageModel]] = {
    "expert": _with_expert,
    "draft": _with_draft,
    "direction": _with_direction,
}
