"""A sequence classifier loaded for judging, with the same care as the model that is judged.

The files are checked before torch is imported, and a checkpoint that lacks a tensor is refused, because it
would classify by random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adacd_cli.config import Settings
from adacd_cli.errors import MissingExtraError, ModelError, OutOfMemoryError, first_line

_AGAIN = "Download or save the model again."


@dataclass(frozen=True)
class Classifier:
    """A classifier ready to run.

    Attributes:
        model: a transformers sequence classifier in eval mode.
        tokenizer: its tokenizer.
        labels: names of its classes, by output.
        before: ids that stand before every text, e.g. [CLS].
        after: ids that stand after it, e.g. [SEP].
        context_length: tokens it was built for; None where it names none.
        warnings: what the user should know about how it was loaded, one sentence each.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    context_length: int | None
    warnings: tuple[str, ...] = ()

    def probabilities(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """The probability of each class, in float32.

        Args:
            rows: ids of one or more texts, `before` and `after` included; their lengths may differ.

        Returns:
            [rows, classes]; NaN where the model gives no finite number.
        """
        import torch

        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.inference_mode():
            device = self.model.device
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            found: list[list[float]] = logits.float().softmax(dim=-1).cpu().tolist()
        return found


def load_classifier(settings: Settings, progress: Callable[[str], None]) -> Classifier:
    """Loads a classifier and tries it with one text.

    Args:
        settings: model (hub id or folder), revision, device, dtype, threads and offline are read.
        progress: told in short lines what is being done.

    Raises:
        ModelError: it cannot be found, read or used, or is no sequence classifier.
        DeviceError: there is no such device here.
        OutOfMemoryError: the weights do not fit.
    """
    from adacd_cli.loading.files import inspect, locate
    from adacd_cli.loading.hub import go_offline
    from adacd_cli.loading.machine import Load

    name = settings.model
    if settings.offline:
        go_offline()
    others = Load()
    source = locate(settings, progress)
    if source.gguf:
        raise ModelError(f"{name} is a GGUF file, not a classifier.", "Name a folder of safetensors.")
    checkpoint = inspect(source.folder, name)
    architectures = checkpoint.config.get("architectures") or ["a model of no class"]
    if not str(architectures[0]).endswith("ForSequenceClassification"):
        raise ModelError(
            f"{name} is no sequence classifier but {architectures[0]}.", "Name a model that classifies texts."
        )
    progress("Starting PyTorch")
    import torch

    from adacd_cli.loading.hardware import choose_device, choose_dtype, placement, weight_bytes
    from adacd_cli.loading.progress import quiet
    from adacd_cli.loading.tokenizer import context_length, load_tokenizer

    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, checkpoint.dtype, device, checkpoint.elements)
    placed = placement(device, weight_bytes(checkpoint, dtype, None), name)
    with quiet(progress) as logged:
        tokenizer = load_tokenizer(source, name, trust_remote_code=False)
        model = _weights(source.folder, name, dtype=dtype, **placed)
        model = model.eval() if placed else model.eval().to(device)
    if device.type == "cpu" or settings.threads is not None:
        torch.set_num_threads(settings.threads or others.free_cores())
    names = model.config.id2label
    before, after = _frame(tokenizer)
    classifier = Classifier(
        model=model,
        tokenizer=tokenizer,
        labels=tuple(str(names.get(index, index)) for index in range(model.config.num_labels)),
        before=before,
        after=after,
        context_length=context_length(model.config),
        warnings=(*source.warnings, *logged),
    )
    _try(classifier, name)
    return classifier


def _weights(folder: Any, name: str, **options: Any) -> Any:
    """The model, with every weight from the checkpoint."""
    from transformers import AutoModelForSequenceClassification

    from adacd_cli.engine.memory import is_out_of_memory

    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # asked for only to be refused below with their names
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except Exception as error:  # transformers has no exception class of its own
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"There is not enough memory to load {name}.", "Run the judge on another device."
            ) from error
        reason = first_line(error).rstrip(".:")
        if isinstance(error, ImportError):
            raise MissingExtraError(
                f"{name} needs a package that is not installed: {reason}.", "Install that package with pip."
            ) from error
        raise ModelError(f"{name} could not be loaded: {reason}.", _AGAIN) from error
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"The weights of {name} are not complete: {absent[0]} is missing or has another shape.",
            "Download or save the model again; without its weights it would judge by random numbers.",
        )
    return model


def _frame(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    return (), ()


def _try(classifier: Classifier, name: str) -> None:
    """One text, so that a dtype or device that does not work is found before the first answer."""
    text = classifier.tokenizer("a", add_special_tokens=False)["input_ids"]
    place = f"{str(classifier.model.dtype).removeprefix('torch.')} on {classifier.model.device}"
    try:
        (row,) = classifier.probabilities([[*classifier.before, *text, *classifier.after]])
    except Exception as error:  # whatever a kernel that is not there raises
        reason = first_line(error).rstrip(".:")
        raise ModelError(
            f"{name} does not run in {place}: {reason}.", "Try another dtype or device."
        ) from error
    if any(value != value for value in row):
        raise ModelError(f"{name} gives NaN or infinite numbers in {place}.", _AGAIN)
