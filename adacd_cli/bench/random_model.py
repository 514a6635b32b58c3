"""Models of a known architecture with random weights, made on the device: nothing is downloaded.

The numbers mean nothing to a reader, and cost a machine exactly what trained ones do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import ModelError, UsageError, first_line
from adacd_cli.suggest import known_names_hint

if TYPE_CHECKING:
    import torch

    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel

SHAPES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("shapes.json").read_text("utf-8"))
"""The architectures of the paper's models, as their config.json have them; stored in bfloat16."""

_STORED = {"bfloat16": "BF16", "float16": "F16", "float64": "F64"}
_BLOCK = 4_194_301  # random numbers that are repeated; a prime, so that no two rows of a matrix are the same


class IdsAsText:
    """In a tokenizer's place: ids decode to their numbers."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(f" {each}" for each in ids)


def read_shape(name: str) -> dict[str, Any]:
    """The values of a shape's config.json (UsageError: there is no such shape or file, or it is no model's)."""
    if name in SHAPES:
        return SHAPES[name]
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    hint = "Name a model's config.json, or the folder that holds it."
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"Unknown shape {name!r}.", f"{known_names_hint(name, SHAPES)} {hint}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        why = f"cannot be read: {reason}" if isinstance(error, OSError) else f"is not valid JSON: {reason}"
        raise UsageError(f"The shape {name!r} {why}.", hint) from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UsageError(f"The shape {name!r} names no model_type.", hint)
    return values


def build_shape(
    name: str, settings: Settings, seed: int, progress: Callable[[str], None] = lambda line: None
) -> LanguageModel:
    """A model of the shape (a name, or the path of a config.json), ready to decode, that no token ends.

    UsageError where there is no such shape; ModelError where transformers knows no such causal language model, or
    it does not run; DeviceError where there is no such device; OutOfMemoryError, before any is made, where the
    weights do not fit.
    """
    values = read_shape(name)
    progress("Starting PyTorch")
    import torch
    from transformers import AutoConfig

    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.loading.files import Checkpoint
    from adacd_cli.loading.hardware import check_memory, choose_device, choose_dtype
    from adacd_cli.loading.local import made_fast
    from adacd_cli.loading.machine import Load
    from adacd_cli.loading.pretrained import causal_config, context_length, smoke_run
    from adacd_cli.loading.progress import quiet

    others = Load()
    device = choose_device(settings.device)
    with quiet(progress) as logged:
        if name in SHAPES:
            config = AutoConfig.for_model(**values)
        else:
            # a checkpoint without weights; transformers takes the path of the very file as well as its folder's
            found = Checkpoint(Path(name).expanduser(), values, dtype="", elements=0, stored_bytes=0)
            fix = "Fix that in it, or name a model's own config.json."
            config = causal_config(found, name, trust_remote_code=settings.trust_remote_code, fix=fix)
        stored = "bfloat16" if name in SHAPES else str(config.dtype or "float32").removeprefix("torch.")
        empty = construct(name, config, getattr(torch, stored), "meta")
        elements = sum(each.numel() for each in empty.parameters())
        chosen = choose_dtype(settings.dtype, _STORED.get(stored, "F32"), device, elements)
        dtype = getattr(torch, stored) if isinstance(chosen, str) else chosen
        hint = "Use --dtype bfloat16, a larger device, or a smaller shape."
        check_memory(f"The weights of {name} need", elements * dtype.itemsize, device, hint)

        progress(f"Making {elements / 1e9:.1f} billion random weights")
        model = construct(name, config, dtype, device)
        _randomize(model, seed)
        if device.type == "cpu" or settings.threads is not None:
            torch.set_num_threads(settings.threads or others.free_cores())
        progress("Trying one token")
        smoke_run(model, 0, name)
        _check_causal(model, name)
    length, warnings = context_length(model.config), tuple(logged)
    made = LanguageModel(model, IdsAsText(), name, None, frozenset(), length, warnings)
    return made_fast(made, settings, progress, for_long=True)


def construct(name: str, config: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """The model with weights of no particular value, and the buffers that it computes for itself."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None
    # the fused kernels leave Gemma-2's soft-capping out
    options = {"attn_implementation": "eager"} if capped else {}
    try:
        with no_init_weights(), torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, **options).eval()
            model.tie_weights()  # which making no weights leaves out
            return model
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each architecture refuses impossible sizes its own way
        message = f"The shape {name!r} cannot be built: {first_line(error).rstrip('.:')}."
        raise ModelError(message, "Name a model's own config.json.") from error


def _check_causal(model: Any, name: str) -> None:
    """Refuses an encoder: transformers makes a causal language model of one, which then looks ahead."""
    import torch

    if model.get_input_embeddings().weight.shape[0] < 3:
        return  # there are no two tokens to compare
    ids = [torch.tensor([[0] + [later] * 15], device=model.device) for later in (1, 2)]
    with torch.inference_mode():
        one, other = (model(input_ids=each, use_cache=False).logits[0, 0].float() for each in ids)
    # a decoder's first logits are the same to the last bit; an encoder's were seen 1 to 30 % of their spread apart
    if (one - other).abs().max() > 0.001 * one.std():
        raise ModelError(
            f"{name} is an encoder ({model.config.model_type}), not a causal language model: it looks ahead.",
            "Name the config.json of a decoder-only model, such as Qwen/Qwen3-8B.",
        )


def _randomize(model: Any, seed: int) -> None:
    """Matrices of small random numbers, scales of 1 and offsets of 0, so that all logits are finite."""
    import torch

    parameter = next(model.parameters())
    generator = torch.Generator(parameter.device).manual_seed(seed)
    block = torch.empty(_BLOCK, dtype=parameter.dtype, device=parameter.device)
    block.normal_(0, 0.02, generator=generator)
    with torch.no_grad():
        for label, weight in model.named_parameters():
            if weight.dim() < 2:
                weight.fill_(0.0 if label.endswith("bias") else 1.0)
                continue
            for piece in weight.view(-1).split(_BLOCK):
                piece.copy_(block[: piece.numel()])
