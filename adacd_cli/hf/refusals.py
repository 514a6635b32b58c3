"""What `generate` may ask for that AdaCD cannot do, each by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.config.methods import METHODS
from adacd_cli.errors import ConfigurationError, ModelError, UsageError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.hf.withheld import Withheld

_ONE_TOKEN = "it chooses one token a step for each row"
_OWN_CACHES = "it keeps two caches of its own"
_NOT_KEPT = "two streams are read, and what they pass through is not kept"

_ASKED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_beams": (lambda value: value > 1, _ONE_TOKEN),
    "penalty_alpha": (bool, _ONE_TOKEN),
    "dola_layers": (bool, _ONE_TOKEN),
    "prompt_lookup_num_tokens": (bool, _ONE_TOKEN),
    "assistant_early_exit": (bool, _ONE_TOKEN),
    "output_attentions": (bool, _NOT_KEPT),
    "output_hidden_states": (bool, _NOT_KEPT),
    "prefill_chunk_size": (bool, "it reads each prompt at once"),
    "cache_implementation": (lambda value: value not in ("dynamic", "static", "hybrid"), _OWN_CACHES),
}
"""Fields of a generation config: when they cannot be had, and why."""

_HANDLED = {
    "attention_mask",
    "position_ids",
    "use_cache",
    "logits_to_keep",
    "past_key_values",
    "cache_params",
}


def refuse(
    model: Any,
    input_ids: torch.Tensor,
    generation_config: Any,
    model_kwargs: Mapping[str, Any],
    withheld: Withheld,
    synced_gpus: bool,
) -> None:
    """Refuses what cannot be done.

    Raises:
        UsageError: an argument of `generate` or a field of its config cannot be honoured.
        ModelError: the model cannot be decoded as it is.
    """
    _refuse_model(model)
    for name, (unwanted, reason) in _ASKED.items():
        value = getattr(generation_config, name, None)
        if value is not None and unwanted(value):
            raise _cannot(f"{name}={value!r}", reason, name)
    if withheld.assistant_model is not None:
        raise _cannot("assistant_model", _ONE_TOKEN)
    if synced_gpus or withheld.synced_gpus:
        raise _cannot("synced_gpus", "a row that has ended takes part in no forward")
    for name in ("past_key_values", "cache_params"):
        cache = model_kwargs.get(name)
        if cache is not None and getattr(cache, "_is_user_defined", False):
            raise _cannot(name, _OWN_CACHES)
    for name, value in model_kwargs.items():
        if name not in _HANDLED and value is not None and not _says_nothing(name, value):
            raise _cannot(name, "a prompt is token ids alone")
    _refuse_positions(input_ids, model_kwargs)


def refuse_method(settings: Settings) -> None:
    """Refuses a method that needs more than a second prompt.

    Raises:
        ConfigurationError: it reads another first prompt, or needs another model, an adapter or a direction.
    """
    method = METHODS[settings.effective_method]
    lacks = method.resource and not (method.stand_in and getattr(settings, method.resource) is None)
    if method.prompt or lacks:
        why = "another first prompt" if method.prompt else f"`{method.resource}`"
        raise ConfigurationError(
            f"Method {method.name} needs {why}, which adacd() under transformers' generate has not.",
            "Use adacd_cli.load and adacd_cli.generate for it.",
        )


def refuse_other_text(made_for: Settings | None, chosen: Settings, contrast_prompt: str | None) -> None:
    """Refuses to read ready prompts under settings that would have made others.

    Args:
        made_for: the settings that came with the prompts; None where they came alone.
        chosen: the settings of the run.
        contrast_prompt: what the caller gave.

    Raises:
        ConfigurationError: the second stream would read another text.
    """
    text = _second_text(chosen)
    if text is None or (made_for is None and contrast_prompt is None):
        return
    if made_for is None or _second_text(made_for) != text:
        raise ConfigurationError(
            "The ready `prompted_input_ids` were made without the text that the prompted stream is to read.",
            "Give `method` and `contrast_prompt` to inputs_for() already.",
        )


def _second_text(settings: Settings) -> str | None:
    second = METHODS[settings.effective_method].second_stream(settings)
    return getattr(settings, second.prompt) if second and second.prompt else None


def _refuse_model(model: Any) -> None:
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder, and AdaCD decodes causal language models.")
    if model.training:
        raise ModelError(f"{name} is in training mode, where dropout acts.", "Call model.eval() first.")
    if model.device.type == "meta":
        raise ModelError(
            f"{name} has weights on the meta device: none, or none that stay on a device.",
            "Load it without offloading, for instance onto one device or with adacd_cli.load.",
        )


def _refuse_positions(input_ids: torch.Tensor, model_kwargs: Mapping[str, Any]) -> None:
    """Positions that the caller counted in another way than from each row's first token."""
    positions, mask = model_kwargs.get("position_ids"), model_kwargs.get("attention_mask")
    if positions is None:
        return
    seen = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.dtype)
    expected = (seen.cumsum(dim=-1) - 1).clamp(min=0)
    if positions.shape != expected.shape or bool((positions != expected)[seen.bool()].any()):
        raise _cannot("position_ids", "it counts them from each prompt's first token")


def _says_nothing(name: str, value: Any) -> bool:
    """Whether an argument changes nothing: a flag that is off, or a single kind of tokens."""
    if name.endswith("token_type_ids"):
        return not bool(torch.as_tensor(value).any())
    return value is False


def _cannot(what: str, reason: str, name: str = "") -> UsageError:
    return UsageError(
        f"AdaCD cannot be decoded with `{what}`: {reason}.", f"Leave {name or what} out of generate()."
    )
