"""load and load_extras: settings -> LanguageModel, at a server or in this process, with what methods need besides.
That is an expert, a draft model, or a stored direction. An expert is a LoRA adapter of the model, put into it so
that the model without it stays what it was: whatever an adapter could change besides is refused before it is
loaded, and a load that fails is taken back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from adacd_cli.config.methods import METHODS
from adacd_cli.config.resolve import LOADING, changed, check_complete, refuse_misplaced
from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError, ModelError
from adacd_cli.loading.local import load_local
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel

_Loaded = tuple[Any, int | None, list[str]]  # what reads a sequence, its context length, and warnings
_WEIGHTS = "adapter_model.safetensors"
_HINT = "An expert is a LoRA adapter of this very model, in the folder that peft's save_pretrained wrote."
_CHANGE_THE_MODEL = ("pissa", "olora", "corda", "loftq")
"""How LoRA's initialisations that rewrite the model's own weights are called, at least at the start."""


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
        from adacd_cli.loading.served import load_served

        loaded = load_served(settings, progress)
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
            loaded, length, warnings = _LOADERS[resource](model, value, settings, progress)
            lengths: dict[tuple[str, str], int] = {} if length is None else {key: length}
            model = replace(
                model,
                extras={**model.extras, key: loaded},
                context_lengths={**model.context_lengths, **lengths},
                warnings=(*model.warnings, *warnings),
            )
    return model


def _draft(model: LanguageModel, name: str, settings: Settings, progress: Progress) -> _Loaded:
    own: dict[str, Any] = {"model": name, "method": "default", "revision": None, "quantize": None}
    own |= {"gate": False, "context": None, "engine": model.engine}
    draft = load_local(settings.model_copy(update=own), progress, for_long=False)
    mine, theirs = (each.tokenizer.get_vocab() for each in (model, draft))
    if mine != theirs:
        token = min(mine.keys() ^ theirs.keys(), default=None)
        what = "the ids differ" if token is None else f"{token!r} is in one of them only"
        hint = "Method ssd needs a draft with the model's own tokenizer."
        raise ModelError(f"The vocabularies of {model.name} and its draft {name} differ: {what}.", hint)
    return draft.model, draft.context_length, [f"Draft: {warning}" for warning in draft.warnings]


def _direction(model: LanguageModel, folder: str, *_: object) -> _Loaded:
    from adacd_cli.backends.torch.views import AblatedView
    from adacd_cli.loading.direction import read_direction

    vector, card = read_direction(folder, model.model.config.get_text_config(decoder=True).hidden_size)
    note = f"The direction in {folder} was made with {card.model}, not with {model.name}."
    return AblatedView(model.model, vector), None, [note] if card.model != model.name else []


def _expert(model: LanguageModel, folder: str, *_: object) -> _Loaded:
    """The model with the adapter; the model itself goes on without it, also where the adapter does not fit."""
    from adacd_cli.loading.hardware import require

    if any(resource == "expert" for resource, _ in model.extras):
        raise ModelError("Another expert is loaded already.", "Start anew with the --expert you want.")
    require(("peft",), "--expert")
    from peft import PeftModel, get_peft_model_state_dict

    from adacd_cli.backends.torch.views import AdapterView

    path, unfit = Path(folder).expanduser(), f"The adapter in {folder} does not fit {model.name}"
    config, names = _read_config(path, folder), _read_names(path, folder)
    with _taken_back_on_failure(model.model):
        try:
            with catch_warnings():
                simplefilter("ignore")  # what is missing is an error below
                adapted = PeftModel.from_pretrained(model.model, path, config=config).eval()
            wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        except Exception as error:  # peft has no exception class of its own
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            # torch's first line is a heading, ending in a colon
            reason = next((line for line in lines if not line.endswith(":")), type(error).__name__)
            raise ModelError(f"{unfit}: {reason.rstrip('.')}.", _HINT) from error
        if wanted != names:
            first = min(wanted ^ names)
            raise ModelError(f"{unfit}: it {'lacks' if first in wanted else 'also holds'} {first}.", _HINT)
        # off at rest: to switch it costs a walk over all modules, which only its own forwards are to pay
        view = AdapterView(adapted)
    base = config.base_model_name_or_path
    note = f"The adapter in {folder} was made for {base}, not for {model.name}."
    return view, None, [note] if base and base != model.name else []


_LOADERS: dict[str, Callable[[LanguageModel, str, Settings, Progress], _Loaded]] = {
    "expert": _expert,
    "draft": _draft,
    "direction": _direction,
}


def _read_config(path: Path, folder: str) -> Any:
    from peft import PeftConfig

    for file in ("adapter_config.json", _WEIGHTS):
        if not (path / file).is_file():
            raise ModelError(f"There is no adapter in {folder}: {file} is missing.", _HINT)
    try:
        config: Any = PeftConfig.from_pretrained(path)
    except Exception as error:  # JSON's, or whatever a wrong value makes of it
        raise ModelError(f"The adapter_config.json in {folder} cannot be read.", _HINT) from error
    kind = getattr(config.peft_type, "value", config.peft_type)
    if kind != "LORA":
        raise ModelError(f"The adapter in {folder} is {kind}, not LORA.", _HINT)
    for name, changes in {
        "bias": config.bias != "none",
        "modules_to_save": bool(config.modules_to_save),
        "layer_replication": bool(config.layer_replication),
        "init_lora_weights": str(config.init_lora_weights).startswith(_CHANGE_THE_MODEL),
    }.items():
        if changes:
            what = f"`{name}` is {getattr(config, name)!r}"
            raise ModelError(f"The adapter in {folder} changes more than LoRA's own weights: {what}.", _HINT)
    return config


def _read_names(path: Path, folder: str) -> set[str]:
    """The names of its tensors, from the header of the file; each must be LoRA's own."""
    from safetensors import safe_open

    try:
        with safe_open(path / _WEIGHTS, framework="pt") as tensors:
            names = set(tensors.keys())
    except Exception as error:  # safetensors' own class, or an OSError
        raise ModelError(f"The {_WEIGHTS} in {folder} is damaged.", _HINT) from error
    for name in sorted(names):
        if ".lora_" not in name:
            raise ModelError(f"The adapter in {folder} holds a weight that is not LoRA's: {name}.", _HINT)
    return names


@contextmanager
def _taken_back_on_failure(model: Any) -> Iterator[None]:
    """peft wraps modules one after another: when it fails, each module gets its own children back."""
    children = [(module, dict(module._modules)) for module in model.modules()]
    try:
        yield
    except BaseException:
        for module, own in children:
            module._modules.clear()
            module._modules.update(own)
        vars(model).pop("peft_config", None)
        raise
