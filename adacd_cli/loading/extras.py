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
        settings: `expert`, `draft` and `direction` name what to load.

    Raises:
        ConfigurationError: a method needs what the model's backend cannot do.
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
    return _with(model, "expert", path, view, warnings)


def _with_draft(
    model: LanguageModel, name: str, settings: Settings, progress: Callable[[str], None]
) -> LanguageModel:
    own: dict[str, Any] = {"model": name, "method": "default", "revision": None, "quantize": None}
    own |= {"gate": False, "context": None, "engine": model.engine}
    draft = load_local(settings.model_copy(update=own), progress, for_long=False)
    mine, theirs = (each.tokenizer.get_vocab() for each in (model, draft))
    if mine != theirs:
        token = min(mine.keys() ^ theirs.keys(), default=None)
        what = "the ids differ" if token is None else f"{token!r} is in one of them only"
        raise ModelError(
            f"The vocabularies of {model.name} and its draft {name} differ: {what}.",
            "Method ssd needs a draft with the model's own tokenizer.",
        )
    if draft.context_length is not None:
        lengths = {**model.context_lengths, ("draft", name): draft.context_length}
        model = replace(model, context_lengths=lengths)
    return _with(model, "draft", name, draft.model, [f"Draft: {warning}" for warning in draft.warnings])


def _with_direction(
    model: LanguageModel, folder: str, settings: Settings, progress: Callable[[str], None]
) -> LanguageModel:
    from adacd_cli.backends.torch.views import AblatedView
    from adacd_cli.loading.direction import read_direction

    vector, card = read_direction(folder, model.model.config.get_text_config(decoder=True).hidden_size)
    note = f"The direction in {folder} was made with {card.model}, not with {model.name}."
    warnings = (note,) if card.model != model.name else ()
    return _with(model, "direction", folder, AblatedView(model.model, vector), warnings)


def _with(
    model: LanguageModel, resource: str, name: str, loaded: Any, warnings: Iterable[str]
) -> LanguageModel:
    extras = {**model.extras, (resource, name): loaded}
    return replace(model, extras=extras, warnings=(*model.warnings, *warnings))


_LOADERS: dict[str, Callable[[LanguageModel, str, Settings, Callable[[str], None]], LanguageModel]] = {
    "expert": _with_expert,
    "draft": _with_draft,
    "direction": _with_direction,
}
