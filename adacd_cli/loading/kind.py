"""Whether a checkpoint is a causal language model that transformers can run, and what it is instead."""

from __future__ import annotations

from typing import Any

from adacd_cli.errors import ModelError
from adacd_cli.loading.folder import Checkpoint
from adacd_cli.loading.source import Source

_HINT = "Choose a decoder-only chat model, such as Qwen/Qwen3-8B, or `demo`, the bundled model."

_FIX = "Fix that in its config.json, or download or save the model again."

_GENERATING = ("ForCausalLM", "LMHeadModel", "WithLMHead", "Decoder", "ForConditionalGeneration")

_KINDS = {
    "ForSequenceClassification": "a text classifier",
    "ForTokenClassification": "a token classifier",
    "ForQuestionAnswering": "an extractive question-answering model",
    "ForMultipleChoice": "a multiple-choice model",
    "ForMaskedLM": "a masked language model",
    "ForPreTraining": "a pretraining model without a decoder",
    "ForImageClassification": "an image classifier",
    "ForObjectDetection": "an object detector",
    "ForCTC": "a speech recogniser",
    "ForAudioClassification": "an audio classifier",
}


def causal_config(checkpoint: Checkpoint, name: str, *, trust_remote_code: bool, fix: str = _FIX) -> Any:
    """The model's configuration as transformers reads it.

    Args:
        checkpoint: what `inspect` found.
        name: what the user called the model.
        trust_remote_code: whether Python code that comes with the model may run.
        fix: what to do about a value that cannot be, such as a size.

    Raises:
        ModelError: transformers does not know the model, its own code would have to run, or it is something
            else than a causal language model.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    raw = checkpoint.config
    model_type = raw.get("model_type")
    own_code = "AutoConfig" in (raw.get("auto_map") or {})
    if model_type is None and not own_code:
        raise ModelError(f"config.json of {name} names no model_type.", "Download or save the model again.")
    if model_type not in CONFIG_MAPPING:
        if own_code and not trust_remote_code:
            raise ModelError(
                f"{name} can only be loaded by Python code that comes with it.",
                "Read that code, and if you trust it add --trust-remote-code.",
            )
        if not own_code:
            raise ModelError(
                f"The installed transformers knows no model of type '{model_type}', which {name} is.",
                "A newer one may: pip install --upgrade transformers.",
            )
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # each model type validates its own way
        raise ModelError(f"config.json of {name} cannot be used: {_reason(error)}.", fix) from error
    _refuse_other_kinds(config, checkpoint, name, trust_remote_code=trust_remote_code)
    return config


def gguf_config(source: Source, name: str) -> Any:
    """The configuration in a GGUF file.

    Raises:
        ModelError: the file is broken, or transformers does not know its architecture.
    """
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


def _refuse_other_kinds(config: Any, checkpoint: Checkpoint, name: str, *, trust_remote_code: bool) -> None:
    architectures = getattr(config, "architectures", None) or []
    architecture = str(architectures[0]) if architectures else config.model_type
    folder = checkpoint.folder
    # The code that comes with a model says itself which class generates, whatever `architectures` is called.
    own_causal = trust_remote_code and "AutoModelForCausalLM" in (checkpoint.config.get("auto_map") or {})
    if getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder model"
    elif (folder / "modules.json").exists() and (folder / "config_sentence_transformers.json").exists():
        kind = "a sentence-embedding model"
    elif own_causal:
        return
    elif architectures and not _generates(architecture, config):
        kind = _kind_of(architecture, config)
    elif not architectures and not _has_causal_class(config):
        kind = _kind_of("Model", config)
    else:
        return
    raise ModelError(f"{name} is {kind} ({architecture}), not a causal language model.", _HINT)


def _has_causal_class(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    return own_code or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _generates(architecture: str, config: Any) -> bool:
    """Whether the class the checkpoint was saved from predicts next tokens and loads as a causal LM."""
    if not _has_causal_class(config):
        return False
    return architecture.endswith(_GENERATING)


def _kind_of(architecture: str, config: Any) -> str:
    for suffix, kind in _KINDS.items():
        if architecture.endswith(suffix):
            return kind
    if hasattr(config, "vision_config"):
        return "a vision-language model that has no text-only class in transformers"
    if architecture.endswith("ForConditionalGeneration"):
        return "a multimodal model"
    if getattr(config, "vocab_size", None) is None:
        return "a vision or audio model"
    return "an encoder or embedding model without a language-model head"
