"""A model in this process: files, hardware, tokenizer, weights, and last one token through the model. torch and
transformers are imported only after the files are found good, so that the offline setting reaches them and a wrong
name fails at once."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError
from adacd_cli.loading.files import Checkpoint, Source, inspect, locate, read_once
from adacd_cli.loading.hub import go_offline
from adacd_cli.loading.llamacpp import endless, limited, load_llamacpp, loads_with_llamacpp, unpacked
from adacd_cli.loading.machine import Load, too_many_threads
from adacd_cli.loading.progress import Progress
from adacd_cli.loading.startup import import_libraries, import_modelling

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel


def load_local(settings: Settings, progress: Progress, *, for_long: bool) -> LanguageModel:
    """Loads the model that the settings name, without what a method needs besides it; see `loader.load`."""
    if settings.offline:
        go_offline()
    others = Load()
    source = locate(settings, progress)
    checkpoint = None if source.gguf else inspect(source.folder, settings.model)
    kind, name = settings.quantize, settings.model
    if kind is not None and (checkpoint is None or "quantization_config" in checkpoint.config):
        what = f"`quantize` {kind} cannot be used with {name}: it is quantised already."
        raise ConfigurationError(what, "Leave --quantize out.")
    if loads_with_llamacpp(settings, source):
        return load_llamacpp(settings, source, others, progress)
    progress("Starting PyTorch")
    import_libraries()
    from adacd_cli.loading.hardware import require
    from adacd_cli.loading.progress import quiet
    from adacd_cli.loading.speed import made_fast

    if source.gguf:
        require(("gguf", "accelerate"), "A GGUF file")
    with quiet(progress) as logged, read_once() if source.gguf else nullcontext():
        import_modelling()
        loaded = _load(settings, source, checkpoint, others, progress)
    loaded = replace(loaded, warnings=(*loaded.warnings, *logged, *unpacked(settings, source)))
    return made_fast(loaded, settings, progress, for_long=for_long)


def _load(
    settings: Settings, source: Source, checkpoint: Checkpoint | None, others: Load, progress: Progress
) -> LanguageModel:
    import torch

    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.loading import hardware, pretrained

    name, trust = settings.model, settings.trust_remote_code
    device = hardware.choose_device(settings.device)
    if checkpoint is None:
        config, needed = pretrained.gguf_config(source, name), None
        dtype = hardware.choose_dtype(settings.dtype, "GGUF", device, None)
    else:
        config = pretrained.causal_config(checkpoint, name, trust_remote_code=trust)
        dtype = hardware.choose_dtype(settings.dtype, checkpoint.dtype, device, checkpoint.elements)
        needed = hardware.weight_bytes(checkpoint, dtype, settings.quantize)
    options: dict[str, Any] = {"config": config, "dtype": dtype, "trust_remote_code": trust}
    if getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None) is not None:
        options["attn_implementation"] = "eager"  # the fused kernels leave Gemma-2's soft-capping out
    if settings.quantize is not None:
        options["quantization_config"] = hardware.quantization_config(settings.quantize, dtype, device)

    progress("Loading tokenizer")
    tokenizer = pretrained.load_tokenizer(source, name, trust_remote_code=trust)

    progress("Loading weights")
    options |= hardware.tensor_parallel(settings) or hardware.placement(device, needed, name)
    model, warnings = pretrained.load_weights(source, name, **options)
    if not options.keys() & {"device_map", "distributed_config"}:
        model = model.to(device)
    warnings += pretrained.check_vocabulary(tokenizer, model.get_input_embeddings().weight.shape[0], name)

    if device.type == "cpu":
        warnings += too_many_threads(settings.threads)
    if device.type == "cpu" or settings.threads is not None:
        torch.set_num_threads(settings.threads or others.free_cores())
    progress("Trying one token")
    pretrained.smoke_run(model, tokenizer.bos_token_id or 0, name)
    ends = pretrained.end_ids(tokenizer, model)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=source.revision,
        eos_ids=ends,
        context_length=limited(pretrained.context_length(model.config), settings),
        warnings=(*source.warnings, *warnings, *endless(ends)),
    )
