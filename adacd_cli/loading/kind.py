"""Whether a checkpoint is a causal language model that transformers can run."""

from __future__ import annotations

from typing import Any

from adacd_cli.errors import ModelError
from adacd_cli.loading.files import Checkpoint, Source

_HINT = "Choose a decoder-only chat model, such as Qwen/Qwen3-8B, or `demo`, the bundled model."

_FIX = "Fix that in its config.json, or download or save the model again."

_GENERATING = ("ForCausalLM", "LMHeadModel", "WithLMHead", "Decoder", "ForConditionalGeneration")


def causal_config(checkpoint: Checkpoint, name: str, *, trust_remote_code: bool, fix: str = _FIX) -> Any:
    """The model's configuration as transformers reads it.

    Args:
        fix: what to do about a value that cannot be, such as a size.

    Raises:
        ModelError: transformers does not know the model, its own code would have to run, or it is something
            else than a causal language model.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    model_type, classes = checkpoint.config.get("model_type"), checkpoint.config.get("auto_map") or {}
    if model_type is None and "AutoConfig" not in classes:
        raise ModelError(f"config.json of {name} names no model_type.", "Download or save the model again.")
    if model_type not in CONFIG_MAPPING and "AutoConfig" not in classes:
        raise ModelError(
            f"The installed transformers knows no model of type '{model_type}', which {name} is.",
            "A newer one may: pip install --upgrade transformers.",
        )
    if model_type not in CONFIG_MAPPING and not trust_remote_code:
        raise ModelError(
            f"{name} can only be loaded by Python code that comes with it.",
            "Read that code, and if you trust it add --trust-remote-code.",
        )
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # each model type validates its own way
        raise ModelError(f"config.json of {name} cannot be used: {_reason(error)}.", fix) from error
    # code that comes with a model says itself which class generates, whatever `architectures` is called
    own_causal = trust_remote_code and "AutoModelForCausalLM" in classes
    architecture = str((getattr(config, "architectures", None) or [config.model_type])[0])
    kind = ""
    if getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder model"
    elif (checkpoint.folder / "config_sentence_transformers.json").exists():
        kind = "a sentence-embedding model"
    elif not own_causal and not _generates(config):
        kind = f"of type {config.model_type}"
    if kind:
        raise ModelError(f"{name} is {kind} ({architecture}), not a causal language model.", _HINT)
    return config


def _generates(config: Any) -> bool:
    """Whether the class the checkpoint was saved from predicts next tokens and loads as a causal LM."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if not own_code and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return False
    architectures = getattr(config, "architectures", None)
    return not architectures or str(architectures[0]).endswith(_GENERATING)


def gguf_config(source: Source, name: str) -> Any:
    """The configuration in a GGUF file. ModelError where the file is broken, or transformers does not know its
    architecture."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source.folder, gguf_file=source.gguf, trust_remote_code=False)
    except Exception as error:  # the gguf package and transformers raise what they like
        raise ModelError(
            f"The GGUF file {name} cannot be used: {_reason(error)}.",
            "Download it again, or use the model's safetensors.",
        ) from error


def _reason(error: Exception) -> str:
    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return last.strip().removeprefix("ValueError: ").rstrip(".")
