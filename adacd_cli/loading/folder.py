"""A model folder, checked from its files alone: what is missing, malformed or cut short is named before
torch is even imported. It says nothing of what kind of model it is (`kind` does).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from adacd_cli.errors import ModelError
from adacd_cli.loading.hub import INDEX

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
)
_PICKLES = ("*.bin", "*.pth", "*.pt")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Checkpoint:
    """What the files say of the weights.

    Attributes:
        folder: where they lie.
        config: config.json.
        dtype: the number format most of the weights are stored in, as safetensors writes it: F32, BF16, …
        elements: how many numbers there are.
        stored_bytes: how many bytes they take on disk.
    """

    folder: Path
    config: dict[str, Any]
    dtype: str
    elements: int
    stored_bytes: int


def inspect(folder: Path, name: str) -> Checkpoint:
    """Checks that the folder holds a whole model, and reads the headers of its weights.

    Args:
        folder: the model's files.
        name: what the user called it, for the messages.

    Raises:
        ModelError: a file is missing, malformed or cut short.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise _unreadable("The folder", name, error) from error
    if not names:
        raise ModelError(f"The folder {name} is empty.", "Name a folder with config.json and safetensors.")
    # With peft installed transformers would fetch an adapter's base model, whatever else the folder holds.
    if "adapter_config.json" in names or "config.json" not in names:
        raise _no_model(folder, name)
    config = _read_json(folder / "config.json", name)
    if "generation_config.json" in names:  # transformers would pass over a broken one, and over its end ids
        _read_json(folder / "generation_config.json", name)
    counts: Counter[str] = Counter()
    stored = 0
    for file in _weight_files(folder, name):
        for tensor in _read_header(file, name).values():
            counts[tensor["dtype"]] += prod(tensor["shape"])
            stored += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    if not counts:
        raise ModelError(f"The weights of {name} hold no tensors.", "Download or save the model again.")
    if not config.get("auto_map") and not any(True for _ in _matches(folder, TOKENIZER_FILES)):
        raise ModelError(
            f"{name} has no tokenizer.",
            "Put the model's tokenizer.json and tokenizer_config.json into its folder.",
        )
    return Checkpoint(folder, config, counts.most_common(1)[0][0], counts.total(), stored)


def _matches(folder: Path, patterns: Iterable[str]) -> list[str]:
    return sorted(file.name for pattern in patterns for file in folder.glob(pattern))


def _no_model(folder: Path, name: str) -> ModelError:
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        base = _read_json(adapter, name).get("base_model_name_or_path") or "its base model"
        return ModelError(
            f"{name} holds a LoRA adapter for {base}, not a whole model.",
            "Merge it into its base with peft (merge_and_unload, then save_pretrained) and name that folder.",
        )
    ggufs = _matches(folder, ("*.gguf",))
    if ggufs:
        return ModelError(
            f"{name} holds GGUF files and no config.json.", f"Name the file: {folder / ggufs[0]}."
        )
    return ModelError(
        f"{name} has no config.json.",
        "Name the folder that holds config.json, the safetensors and the tokenizer.",
    )


def _unreadable(what: str, name: str, error: OSError) -> ModelError:
    return ModelError(f"{what} {name} cannot be read: {error.strerror or error}.", "Check its permissions.")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(f"{path.name} of", name, error) from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both of this kind
        raise ModelError(
            f"{path.name} of {name} is not valid JSON: {error}.", "Download or save the model again."
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} of {name} is not a JSON object.", "Download or save the model again.")
    return value


def _weight_files(folder: Path, name: str) -> list[Path]:
    if (folder / INDEX).exists():
        shards = _read_json(folder / INDEX, name).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{INDEX} of {name} names no files.", "Download or save the model again.")
        names = sorted({str(shard) for shard in shards.values()})
        missing = [shard for shard in names if not (folder / shard).exists()]
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} of its {len(names)} safetensors files, {missing[0]} first.",
                "Download the model again.",
            )
        return [folder / shard for shard in names]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    pickles = _matches(folder, _PICKLES)
    if pickles:
        raise ModelError(
            f"{name} has no safetensors weights; it has {pickles[0]}.",
            "Save it again with save_pretrained, which writes safetensors: pickled weights can run code.",
        )
    raise ModelError(
        f"{name} has no weights: there is no model.safetensors.", "Download or save the model again."
    )


def _read_header(path: Path, name: str) -> dict[str, Any]:
    """The tensors a safetensors file says it holds: name to dtype, shape and data_offsets."""
    again = "Download or save the model again."
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if (start + file.read(len(_LFS_POINTER) - 8)).startswith(_LFS_POINTER):
                raise ModelError(
                    f"{path.name} of {name} is a Git LFS pointer, not the weights.",
                    "Run `git lfs pull` in it.",
                )
            size = path.stat().st_size
            header_size = int.from_bytes(start, "little")
            if len(start) < 8 or header_size > size - 8:
                raise ModelError(f"{path.name} of {name} is cut short or no safetensors file.", again)
            file.seek(8)
            header = json.loads(file.read(header_size))
            header.pop("__metadata__", None)
            end = 8 + header_size + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except OSError as error:
        raise _unreadable(f"{path.name} of", name, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} of {name} is not a safetensors file.", again) from error
    if size < end:
        raise ModelError(f"{path.name} of {name} is cut short: it has {size:,} of {end:,} bytes.", again)
    tensors: dict[str, Any] = header
    return tensors
