"""What methods need besides a model: an expert, a draft model, or a stored direction of the residual stream.

An expert is a LoRA adapter of the model, put into it so that the model without it stays what it was: whatever an
adapter could change besides is refused before it is loaded, and a load that fails is taken back. A direction is a
folder with `direction.safetensors` and, in words, `direction.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from adacd_cli.config.settings import Settings
from adacd_cli.errors import ModelError, OutputError
from adacd_cli.loading.local import load_local
from adacd_cli.loading.progress import Progress

if TYPE_CHECKING:
    import torch

    from adacd_cli.engine.model import LanguageModel

_Loaded = tuple[Any, int | None, list[str]]  # what reads a sequence, its context length, and warnings
_WEIGHTS = "adapter_model.safetensors"
_HINT = "An expert is a LoRA adapter of this very model, in the folder that peft's save_pretrained wrote."
# how LoRA's initialisations that rewrite the model's own weights are called, at least at the start
_CHANGE_THE_MODEL = ("pissa", "olora", "corda", "loftq")
_TENSOR = "direction"
_AGAIN = "Make it with `adacd direction build`."


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

    vector, card = read_direction(folder, model.model.config.get_text_config(decoder=True).hidden_size)
    note = f"The direction in {folder} was made with {card.model}, not with {model.name}."
    return AblatedView(model.model, vector), None, [note] if card.model != model.name else []


def _expert(model: LanguageModel, folder: str, *_: object) -> _Loaded:
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


@dataclass(frozen=True)
class DirectionCard:
    """Where a direction comes from: the model and its commit on the hub, and where it was measured: at the input of
    block `layer`, 0-based, at `position`, -1 being the prompt's last. `facts` says how it was chosen."""

    model: str
    revision: str | None
    layer: int
    position: int
    hidden_size: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_folder(folder: Path) -> None:
    """Makes the folder; raises OutputError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_direction(folder: Path, vector: torch.Tensor, card: DirectionCard) -> None:
    """Writes both files, or raises OutputError; what was there before then stays."""
    from safetensors.torch import save  # in memory: a full disk is then an OSError like any other

    tensors = save({_TENSOR: vector.detach().float().cpu().contiguous()})
    text = json.dumps(asdict(card), ensure_ascii=False, indent=2) + "\n"
    prepare_folder(folder)
    contents = {folder / "direction.safetensors": tensors, folder / "direction.json": text.encode()}
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            partial[path].write_bytes(content)
        for path, written in partial.items():
            written.replace(path)
    except OSError as error:
        for written in partial.values():
            written.unlink(missing_ok=True)
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    what = f"The direction could not be written to {str(folder)!r}: {error.strerror or error}."
    return OutputError(what, "Name a folder that you may write to.")


def read_direction(folder: str, hidden_size: int) -> tuple[torch.Tensor, DirectionCard]:
    """The vector and where it comes from. ModelError where there is none, or not of the model's width."""
    from safetensors.torch import load_file

    path = Path(folder).expanduser()
    try:
        card = DirectionCard(**json.loads((path / "direction.json").read_text(encoding="utf-8")))
        vector = load_file(path / "direction.safetensors")[_TENSOR]
        if not vector.isfinite().all() or not vector.any():
            raise ValueError("no direction")
    except OSError as error:
        raise ModelError(f"There is no direction in {folder}: {error.strerror or error}.", _AGAIN) from error
    except Exception as error:  # damaged JSON or safetensors, each with classes of its own
        raise ModelError(f"The direction in {folder} is damaged.", _AGAIN) from error
    if vector.shape != (hidden_size,):
        sizes = f"{vector.numel()} numbers, and the model's hidden size is {hidden_size}"
        hint = f"A direction belongs to the model that it was made with. {_AGAIN}"
        raise ModelError(f"The direction in {folder} has {sizes}.", hint)
    return vector, card


LOADERS: dict[str, Callable[[LanguageModel, str, Settings, Progress], _Loaded]] = {
    "expert": _expert,
    "draft": _draft,
    "direction": _direction,
}
