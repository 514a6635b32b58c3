"""An expert: a LoRA adapter of the model, put into it so that the model without it stays what it was.

Whatever an adapter could change besides is refused before it is loaded, and a load that fails is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from adacd_cli.errors import ModelError
from adacd_cli.loading.quantization import require

if TYPE_CHECKING:
    from adacd_cli.backends.torch.views import AdapterView
    from adacd_cli.engine.model import LanguageModel

_WEIGHTS = "adapter_model.safetensors"
_HINT = "An expert is a LoRA adapter of this very model, in the folder that peft's save_pretrained wrote."
_CHANGE_THE_MODEL = ("pissa", "olora", "corda", "loftq")
"""How LoRA's initialisations that rewrite the model's own weights are called, at least at the start."""


def load_expert(model: LanguageModel, folder: str) -> tuple[AdapterView, tuple[str, ...]]:
    """The model with the adapter, and warnings; the model itself goes on without it. ModelError where there is no
    LoRA adapter, or it does not fit the model, which is then left as it was; MissingExtraError where peft is not
    installed."""
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
    if not base or base == model.name:
        return view, ()
    return view, (f"The adapter in {folder} was made for {base}, not for {model.name}.",)


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
            raise ModelError(
                f"The adapter in {folder} changes more than LoRA's own weights: `{name}` is "
                f"{getattr(config, name)!r}.",
                _HINT,
            )
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
