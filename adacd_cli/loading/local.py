"""A model in this process: files, hardware, tokenizer, weights, and last one token through the model. A GGUF file
runs on llama.cpp where that is installed, all else on torch, which with transformers is imported only after the
files are found good, so that the offline setting reaches them and a wrong name fails at once. Of their start what
no decoding needs is left out; a saving that does not apply gives way to the plain import."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adacd_cli.config.settings import Settings
from adacd_cli.errors import ConfigurationError, first_line
from adacd_cli.loading.files import Checkpoint, Source, inspect, locate, read_once
from adacd_cli.loading.hub import go_offline
from adacd_cli.loading.machine import Load, free_memory, too_many_threads
from adacd_cli.loading.progress import Progress, quiet

if TYPE_CHECKING:
    from adacd_cli.backends.torch.kv_cache import Compiled
    from adacd_cli.engine.model import LanguageModel

_TORCH_ONLY = {
    "dtype": "a GGUF file is computed in its own number formats",
    "quantize": "a GGUF file is quantised already",
    "compile": "there is nothing to compile",
}


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
        return _load_with_llamacpp(settings, source, others, progress)
    progress("Starting PyTorch")
    import_libraries()
    from adacd_cli.loading.hardware import require

    if source.gguf:
        require(("gguf", "accelerate"), "A GGUF file")
    with quiet(progress) as logged, read_once() if source.gguf else nullcontext():
        import_modelling()
        loaded = _load_with_torch(settings, source, checkpoint, others, progress)
    loaded = replace(loaded, warnings=(*loaded.warnings, *logged, *unpacked(settings, source)))
    return made_fast(loaded, settings, progress, for_long=for_long)


def loads_with_llamacpp(settings: Settings, source: Source) -> bool:
    """Whether llama.cpp runs the model. ConfigurationError where it is asked for something else than a GGUF file;
    MissingExtraError where it is asked for, and not installed."""
    if source.gguf is None and settings.engine == "llamacpp":
        hint = "Use --engine torch, or name a GGUF file."
        raise ConfigurationError(f"`engine` llamacpp runs GGUF files, and {settings.model} is none.", hint)
    if source.gguf is None or settings.engine == "torch":
        if settings.gpu_layers is not None:
            what = "`gpu_layers` is for the llama.cpp engine, and the engine is torch."
            raise ConfigurationError(what, "Leave it out; --device chooses a GPU.")
        return False
    from adacd_cli.backends.llamacpp.library import available, library

    if settings.engine == "llamacpp":
        library()
    return available()


def unpacked(settings: Settings, source: Source) -> tuple[str, ...]:
    """A warning where a GGUF file runs on torch because llama.cpp is not there."""
    if source.gguf is None or settings.engine == "torch":
        return ()
    from adacd_cli.backends.llamacpp.library import INSTALL

    return (
        "llama.cpp is not installed, so PyTorch runs this GGUF file, unpacked: several times slower and "
        f"larger. {INSTALL} installs it.",
    )


def _load_with_llamacpp(
    settings: Settings, source: Source, others: Load, progress: Progress
) -> LanguageModel:
    name = settings.model
    for option, reason in _TORCH_ONLY.items():
        if getattr(settings, option) not in ("auto", None, False):
            what = f"`{option}` cannot be set for {name}: it runs on llama.cpp, and {reason}."
            raise ConfigurationError(what, "Leave it out, or use --engine torch.")
    if settings.device not in ("auto", "cpu"):
        what = f"`device` {settings.device} cannot be set for {name}: it runs on llama.cpp."
        hint = "Use --gpu-layers to choose how much a GPU computes, or --engine torch."
        raise ConfigurationError(what, hint)
    progress("Starting PyTorch")
    import torch

    from adacd_cli.backends.llamacpp.model import LlamaModel, LlamaTokenizer

    assert source.gguf is not None
    progress("Loading weights")
    torch.set_num_threads(1)  # the rules are little work, and waiting threads would take llama.cpp's cores
    model = LlamaModel(
        source.folder / source.gguf,
        name,
        threads=settings.threads or others.free_cores(),
        gpu_layers=0 if settings.device == "cpu" else settings.gpu_layers,
        free_memory=free_memory,
    )
    tokenizer, warnings = LlamaTokenizer(model), too_many_threads(settings.threads)
    return _loaded(settings, source, model, tokenizer, tokenizer.end_ids, model.context_length, warnings)


def _load_with_torch(
    settings: Settings, source: Source, checkpoint: Checkpoint | None, others: Load, progress: Progress
) -> LanguageModel:
    import torch

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
    ends, trained = pretrained.end_ids(tokenizer, model), pretrained.context_length(model.config)
    return _loaded(settings, source, model, tokenizer, ends, trained, warnings)


def _loaded(
    settings: Settings,
    source: Source,
    model: Any,
    tokenizer: Any,
    ends: Collection[int],
    trained: int | None,
    warnings: tuple[str, ...],
) -> LanguageModel:
    """What both engines end with; `trained` is the positions that the model was trained for, None where unknown."""
    from adacd_cli.engine.model import LanguageModel

    name, context = settings.model, settings.context
    if context is not None and trained is not None and context > trained:
        what = f"`context` {context:,} is more than the {trained:,} positions that {name} was trained for."
        raise ConfigurationError(what, "Leave --context out, or choose fewer.")
    warnings = (*source.warnings, *warnings)
    if not ends:
        warnings += ("The model names no token that ends an answer: answers run to --max-new-tokens.",)
    length = trained if context is None else context
    return LanguageModel(model, tokenizer, name, source.revision, frozenset(ends), length, warnings)


def made_fast(
    model: LanguageModel, settings: Settings, progress: Progress, *, for_long: bool = False
) -> LanguageModel:
    """The model, as fast as this machine lets it be: with faster products on a CPU, with compiled forwards on a
    GPU, or a warning where it could not be compiled. `for_long`: whether so much will be decoded that compiling
    pays off where the setting `compile` is None."""
    from adacd_cli.backends.torch.kv_cache import Compiled, uncompiled
    from adacd_cli.backends.torch.matmul import speed_up
    from adacd_cli.loading.hardware import processes

    # what is found by a measurement may differ between the processes of torchrun, which must not
    if model.device.type == "cpu" and processes() == 1:
        speed_up(model.model, free_memory())
    if not (for_long and model.device.type == "cuda" if settings.compile is None else settings.compile):
        return model
    progress("Compiling (the first use takes a minute or more, later ones are read from disk)")
    begin = time.perf_counter()
    try:
        compiled = Compiled(model.model)
        warm_up(compiled)
    except Exception as error:  # the compiler's own errors are of many kinds
        warning = uncompiled(model.name, first_line(error))
        return replace(model, warnings=(*model.warnings, warning))
    progress(f"Compiled in {time.perf_counter() - begin:.0f} s")
    return replace(model, compiled=compiled)


def warm_up(compiled: Compiled) -> None:
    """Compiles what the first answers need: a row, and the two rows of a contrast window. TypeError where the model
    keeps more than keys and values; RuntimeError, in the compiler's words, where it cannot be compiled."""
    from adacd_cli.backends.torch.batch import BatchedKVCache

    for rows in (1, 2):
        cache = BatchedKVCache(compiled.model, compiled)
        cache.prefill([[0, 0]] * rows)
        if not cache.joins:
            raise TypeError("it keeps a running state")
        for _ in range(2):  # the second time a CUDA graph is recorded
            cache.advance([0] * rows)
            if compiled.problem:
                raise RuntimeError(compiled.problem)
        cache.release()


def import_libraries() -> None:
    """Imports torch and transformers themselves. ImportError where one is not installed, or broken."""
    with _no_collections():
        import torch  # noqa: F401  # first, so that its absence is not reported in transformers' words
        import transformers

        scan_models_once(Path(transformers.__file__).parent / "models")


def import_modelling() -> None:
    """Imports the base classes of transformers' models, apart because their imports can warn; a fault in them is
    left to be reported where they are used."""
    with _no_collections(), suppress(Exception):
        with _scipy_on_call():
            import_module("transformers.loss.loss_utils")
        import_module("transformers.modeling_layers")


@contextmanager
def _no_collections() -> Iterator[None]:
    """Pauses the search for cyclic garbage: imports make a million objects that stay and few to collect."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if gc.get_freeze_count() == 0:  # else what the caller froze would thaw
                gc.freeze()
                gc.unfreeze()  # frozen and thawed they all are old, and the next search passes them by
            gc.enable()


def scan_models_once(folder: Path) -> None:
    """Imports transformers.models with what transformers found when it scanned its 3,000 files for itself; there it
    scans them again, a tenth of the whole start, because it names the folder in another way."""
    from transformers.utils import import_utils

    with suppress(Exception):
        scan, file = import_utils.create_import_structure_from_path, str(folder / "__init__.py")
        # it keeps what it found for each path
        import_utils.create_import_structure_from_path = lambda path: scan(folder if path == file else path)
        try:
            import_module("transformers.models")
        finally:
            import_utils.create_import_structure_from_path = scan


@contextmanager
def _scipy_on_call() -> Iterator[None]:
    """Gives whoever imports scipy.optimize in the block the one function of it that the losses of object detectors
    take, which imports its 300 modules when called. An importer that wants another fails until imported again."""
    name = "scipy.optimize"
    if name in sys.modules or find_spec("scipy") is None:
        yield
        return
    stand_in: Any = ModuleType(name)
    stand_in.linear_sum_assignment = lambda *given: import_module(name).linear_sum_assignment(*given)
    sys.modules[name] = stand_in
    try:
        with suppress(ImportError, AttributeError):
            yield
    finally:
        del sys.modules[name]
