"""What transformers makes of a model's files: its configuration, which says whether it is a causal language model,
its tokenizer, and its weights, which are loaded whole or refused, then tried with one token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.errors import AdacdError, MissingExtraError, ModelError, OutOfMemoryError, first_line
from adacd_cli.loading.files import Checkpoint, Source, ids_of

_AGAIN = "Download or save the model again."
_HINT = "Choose a decoder-only chat model, such as Qwen/Qwen3-8B, or `demo`, the bundled model."
_TRUST = "Read that code, and if you trust it add --trust-remote-code."
_FIX = "Fix that in its config.json, or download or save the model again."
_GENERATING = ("ForCausalLM", "LMHeadModel", "WithLMHead", "Decoder", "ForConditionalGeneration")

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
# ends of names that old checkpoints may lack or hold: buffers a model computes for itself
_COMPUTED = ("inv_freq", "attn.bias", "masked_bias", "position_ids")


def causal_config(checkpoint: Checkpoint, name: str, *, trust_remote_code: bool, fix: str = _FIX) -> Any:
    """The model's configuration as transformers reads it. ModelError, with the hint `fix` for a wrong value, where
    transformers does not know the model, its own code would have to run, or it is no causal language model."""
    model_type, classes = checkpoint.config.get("model_type"), checkpoint.config.get("auto_map") or {}
    if model_type is None and "AutoConfig" not in classes:
        raise ModelError(f"config.json of {name} names no model_type.", _AGAIN)
    if model_type not in CONFIG_MAPPING and "AutoConfig" not in classes:
        what = f"The installed transformers knows no model of type '{model_type}', which {name} is."
        raise ModelError(what, "A newer one may: pip install --upgrade transformers.")
    if model_type not in CONFIG_MAPPING and not trust_remote_code:
        raise ModelError(f"{name} can only be loaded by Python code that comes with it.", _TRUST)
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
    """The configuration in a GGUF file; ModelError where the file is broken, or of no known architecture."""
    try:
        return AutoConfig.from_pretrained(source.folder, gguf_file=source.gguf, trust_remote_code=False)
    except Exception as error:  # the gguf package and transformers raise what they like
        hint = "Download it again, or use the model's safetensors."
        raise ModelError(f"The GGUF file {name} cannot be used: {_reason(error)}.", hint) from error


def _reason(error: Exception) -> str:
    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return last.strip().removeprefix("ValueError: ").rstrip(".")


def load_tokenizer(source: Source, name: str, *, trust_remote_code: bool) -> Any:
    """The tokenizer beside the weights; ModelError where there is none that transformers can read."""
    gguf = {} if source.gguf is None else {"gguf_file": source.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust_remote_code, **gguf)
    except Exception as error:  # JSON errors, missing packages, unknown classes: each tokenizer its own
        what = f"cannot be loaded: {first_line(error).rstrip('.')}"
        hint = "Put the model's tokenizer.json and tokenizer_config.json into its folder."
        if not trust_remote_code and "trust_remote_code" in str(error):
            what, hint = "can only be loaded by Python code that comes with it", _TRUST
        raise ModelError(f"The tokenizer of {name} {what}.", hint) from error
    tokenizer.model_max_length = 10**30  # no limit, for transformers; else each long prompt is warned of
    return tokenizer


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> tuple[str, ...]:
    """Checks that every id of the tokenizer has one of the model's input embeddings (`rows`), else ModelError;
    warns of a vocabulary far smaller than the model's."""
    ids = set(tokenizer.get_vocab().values())
    needed = ids - {tokenizer.pad_token_id}  # several Llamas were given a padding token that nothing feeds
    if not needed:
        raise ModelError(f"The tokenizer of {name} is empty.", _AGAIN)
    if max(needed) >= rows:
        why = f"it has ids up to {max(needed):,}, and the model has {rows:,} embeddings"
        hint = "Use the tokenizer files that came with the weights."
        raise ModelError(f"The tokenizer of {name} belongs to another model: {why}.", hint)
    what = f"The tokenizer has {len(ids):,} tokens and the model {rows:,} embeddings"
    return (f"{what}: they may not belong together.",) if len(ids) < rows // 2 else ()


def end_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """Every id that the tokenizer, the model's config or its generation config names as an end."""
    config = model.config
    text, generation = config.get_text_config(decoder=True), getattr(model, "generation_config", None)
    sources = (tokenizer, config, text, generation)
    return frozenset(end for each in sources for end in ids_of(getattr(each, "eos_token_id", None)))


def context_length(config: Any) -> int | None:
    """Positions the model was built for; None where its config names none."""
    text = config.get_text_config(decoder=True)
    lengths = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def load_weights(source: Source, name: str, kind: Any = None, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """The model, of transformers' auto class KIND (None is AutoModelForCausalLM), in eval mode, with every weight
    from the checkpoint, and warnings about tensors that it does not use; the options are those of
    `from_pretrained`. ModelError where a tensor is missing or has another shape, or the model cannot be built;
    MissingExtraError where a package that quantised it is not installed; OutOfMemoryError where they do not fit."""
    files = {"use_safetensors": True} if source.gguf is None else {"gguf_file": source.gguf}
    try:
        # Mismatched shapes are asked for here only to be refused below with their names.
        model, info = (kind or transformers.AutoModelForCausalLM).from_pretrained(
            source.folder, output_loading_info=True, ignore_mismatched_sizes=True, **files, **options
        )
    except Exception as error:  # transformers has no exception class of its own
        hint = "Leave --quantize out, or choose another kind of it."
        raise _translated(error, name, hint if "quantization_config" in options else _AGAIN) from error
    for tensor, *shapes in sorted(info["mismatched_keys"]):
        stored, wanted = ("×".join(map(str, shape)) for shape in shapes)
        what = f"do not fit its config.json: {tensor} is {stored} and should be {wanted}"
        hint = "Put back the config.json of these weights, or download or save the model again."
        raise ModelError(f"The weights of {name} {what}.", hint)
    if missing := _first_of(info["missing_keys"]):
        raise ModelError(f"The weights of {name} are not complete: {missing} is missing.", _AGAIN)
    if unused := _first_of(info["unexpected_keys"]):
        return model.eval(), (f"The checkpoint holds tensors that this model does not use: {unused}.",)
    return model.eval(), ()


def smoke_run(model: Any, token_id: int, name: str) -> None:
    """One forward of one token: a dtype or device that does not work is found before the first answer. ModelError
    where the forward fails, or gives logits that are not finite; OutOfMemoryError."""
    place = f"{str(model.dtype).removeprefix('torch.')} on {model.device}"
    hint = "Try --dtype float32." if model.dtype != torch.float32 else "Try another --device."
    try:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[token_id]], device=model.device)).logits
        finite = bool(torch.isfinite(logits).all())
    except Exception as error:
        if is_out_of_memory(error):
            raise _translated(error, name, hint) from error
        raise ModelError(f"{name} does not run in {place}: {_first_reason(error)}.", hint) from error
    if not finite:
        damaged = "The checkpoint is probably damaged: download or save the model again."
        if model.dtype != torch.float32:
            damaged = "Try --dtype float32; if it stays so, the checkpoint is damaged."
        raise ModelError(f"{name} gives NaN or infinite logits in {place}.", damaged)


def _translated(error: Exception, name: str, hint: str) -> AdacdError:
    if is_out_of_memory(error):
        less = "Use --quantize bnb-4bit, --dtype bfloat16, or a smaller model."
        return OutOfMemoryError(f"There is not enough memory to load {name}.", less)
    if isinstance(error, ImportError):
        what = f"{name} needs a package that is not installed: {_first_reason(error)}."
        return MissingExtraError(what, "Install that package with pip.")
    return ModelError(f"{name} could not be loaded: {_first_reason(error)}.", hint)


def _first_of(keys: Iterable[str]) -> str:
    """The first name that is a weight's, and how many more there are; "" where there is none."""
    names = sorted(key for key in keys if not key.endswith(_COMPUTED))
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else ""


def _first_reason(error: BaseException) -> str:
    return first_line(error).rstrip(".:")
