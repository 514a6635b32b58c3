"""A model's files on this machine. `locate` finds what `--model` names: the demo, a folder, a GGUF file or a hub
id. `inspect` says what of a folder is missing, malformed or cut short before torch is even imported."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from adacd_cli.config import Settings
from adacd_cli.errors import ModelError
from adacd_cli.loading.hub import INDEX, fetch
from adacd_cli.loading.hub import Source as Source
from adacd_cli.loading.progress import Progress

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json", "*.tiktoken"),
)
_PICKLES = ("*.bin", "*.pth", "*.pt")
_GGUF_MAGIC = b"GGUF"
_ROWS_BYTES = 2**24  # of a GGUF tensor that are unpacked at a time
_LFS_POINTER = b"version https://git-lfs"
_AGAIN = "Download or save the model again."


@dataclass(frozen=True)
class Checkpoint:
    """What the files say of the weights: the number format most of them are stored in, as safetensors writes it
    (F32, BF16, …), how many numbers there are, and how many bytes they take on disk."""

    folder: Path
    config: dict[str, Any]
    dtype: str
    elements: int
    stored_bytes: int


def locate(settings: Settings, progress: Progress, *, weights: bool = True) -> Source:
    """Finds the files of `settings.model`, downloading a hub id that is not here yet; without `weights` the
    tokenizer's alone. ModelError where there is no such file, folder or hub id, or it cannot be had."""
    name = settings.model
    if name == "demo":
        from adacd_cli.demo import model_folder

        return Source(model_folder())
    path = Path(name).expanduser()
    if "://" in name and not path.exists():
        hint = "Type owner/name, or owner/name:Q4_K_M for one of its GGUF files."
        raise ModelError(f"{name} is not the page of a whole model on the hub.", hint)
    if path.exists() or looks_like_a_path(name):
        note = "A revision names a commit on the hub, so it was not used for local files."
        warnings = () if settings.revision is None else (note,)
        if path.is_dir():
            return Source(path, warnings=warnings)
        _check_gguf(path, name)
        return Source(path.parent, path.name, warnings=warnings)
    repository, _, gguf = name.partition(":")
    found = fetch(repository, gguf or None, settings, progress, weights=weights)
    file = found.folder / (found.gguf or "-")  # in a folder of its own, perhaps
    return replace(found, folder=file.parent, gguf=found.gguf and file.name)


def looks_like_a_path(name: str) -> bool:
    """Whether the name can only be meant as a path; a hub id is `name`, `owner/name` or `owner/name:GGUF`."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+:[\w./-]+", name) and not name.startswith("."):
        return False
    begins, ends = name.startswith((".", "/", "~")), name.endswith((".gguf", "/"))
    return begins or ends or name.count("/") > 1 or "\\" in name


def _check_gguf(path: Path, name: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except FileNotFoundError as error:
        kind = "file" if path.suffix == ".gguf" else "folder"
        hint = "Check the path; a model on the hub is named owner/name, and `demo` is the bundled model."
        raise ModelError(f"The model {kind} {name} does not exist.", hint) from error
    except OSError as error:
        raise _unreadable("The model file", name, error) from error
    if magic != _GGUF_MAGIC:
        hint = "Name the folder that holds config.json and the safetensors, or a GGUF file."
        raise ModelError(f"{name} is a file, but not a GGUF file.", hint)


@contextmanager
def read_once() -> Iterator[None]:
    """Lets transformers open a GGUF file as often as it likes while Python parses it a single time, which takes
    seconds, and unpacks its tensors without a second copy of the file and of the largest tensor in memory."""
    import gguf

    reader, unpack = gguf.GGUFReader, gguf.dequantize
    gguf.GGUFReader = lru_cache(maxsize=1)(reader)
    gguf.dequantize = lambda data, kind: _unpack_by_rows(unpack, data, kind)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.dequantize = reader, unpack


def _unpack_by_rows(unpack: Callable[[Any, Any], Any], data: Any, kind: Any) -> Any:
    """A tensor's values as float32, some rows at a time; the pages of the file that hold it are let go."""
    import numpy

    from adacd_cli.engine.memory import drop_pages, mapped_files

    if data.ndim != 2 or data.nbytes < _ROWS_BYTES:
        values = unpack(data, kind)
    else:
        step = max(1, _ROWS_BYTES * len(data) // data.nbytes)
        first = unpack(data[:step], kind)
        values = numpy.empty((len(data), first.shape[1]), first.dtype)
        values[:step] = first
        for start in range(step, len(data), step):
            values[start : start + step] = unpack(data[start : start + step], kind)
    if values.base is None and not numpy.shares_memory(values, data):
        drop_pages(mapped_files(), data.ctypes.data, data.nbytes)
    return values


def inspect(folder: Path, name: str) -> Checkpoint:
    """Checks that a folder holds a whole model. ModelError where a file is missing, malformed or cut short."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise _unreadable("The folder", name, error) from error
    # With peft installed transformers would fetch an adapter's base model, whatever else the folder holds.
    if "adapter_config.json" in names or "config.json" not in names:
        raise _no_model(folder, name)
    config = _read_json(folder / "config.json", name)
    _check_ends(config, "config.json", name)
    if "generation_config.json" in names:  # transformers would pass over a broken one, and over its end ids
        _check_ends(_read_json(folder / "generation_config.json", name), "generation_config.json", name)
    counts: Counter[str] = Counter()
    stored = 0
    for file in _weight_files(folder, name):
        for tensor in _read_header(file, name).values():
            counts[tensor["dtype"]] += prod(tensor["shape"])
            stored += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    if not counts:
        raise ModelError(f"The weights of {name} hold no tensors.", _AGAIN)
    if not config.get("auto_map") and not _matches(folder, TOKENIZER_FILES):
        hint = "Put the model's tokenizer.json and tokenizer_config.json into its folder."
        raise ModelError(f"{name} has no tokenizer.", hint)
    return Checkpoint(folder, config, counts.most_common(1)[0][0], counts.total(), stored)


def ids_of(value: Any) -> list[int]:
    """The ids that an `eos_token_id` names: one, several or none; ValueError where it is none of these."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(each) is not int for each in ids):
        raise ValueError(f"{value!r} is neither a token's id nor a list of them")
    return list(ids)


def _check_ends(config: dict[str, Any], file: str, name: str) -> None:
    text = config.get("text_config")
    for values in (config, text if isinstance(text, dict) else {}):
        try:
            ids_of(values.get("eos_token_id"))
        except ValueError as error:
            hint = "Write whole numbers there, e.g. 2 or [2, 7]; the model's tokenizer.json has the ids."
            raise ModelError(f"`eos_token_id` in {file} of {name} cannot be used: {error}.", hint) from error


def _matches(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted(file.name for pattern in patterns for file in folder.glob(pattern))


def _no_model(folder: Path, name: str) -> ModelError:
    if (adapter := folder / "adapter_config.json").exists():
        base = _read_json(adapter, name).get("base_model_name_or_path") or "its base model"
        hint = (
            "Merge it into its base with peft (merge_and_unload, then save_pretrained) and name that folder."
        )
        return ModelError(f"{name} holds a LoRA adapter for {base}, not a whole model.", hint)
    hint = "Name the folder that holds config.json, the safetensors and the tokenizer."
    if ggufs := _matches(folder, ("*.gguf",)):
        hint = f"Name its GGUF file: {folder / ggufs[0]}."
    return ModelError(f"{name} has no config.json.", hint)


def _unreadable(what: str, name: str, error: OSError) -> ModelError:
    return ModelError(f"{what} {name} cannot be read: {error.strerror or error}.", "Check its permissions.")


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(f"{path.name} of", name, error) from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both of this kind
        raise ModelError(f"{path.name} of {name} is not valid JSON: {error}.", _AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.name} of {name} is not a JSON object.", _AGAIN)
    return value


def _weight_files(folder: Path, name: str) -> list[Path]:
    if (folder / INDEX).exists():
        shards = _read_json(folder / INDEX, name).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelError(f"{INDEX} of {name} names no files.", _AGAIN)
        names = sorted({str(shard) for shard in shards.values()})
        if missing := [shard for shard in names if not (folder / shard).exists()]:
            what = f"lacks {len(missing)} of its {len(names)} safetensors files, {missing[0]} first"
            raise ModelError(f"{name} {what}.", _AGAIN)
        return [folder / shard for shard in names]
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    if pickles := _matches(folder, _PICKLES):
        hint = "Save it again with save_pretrained, which writes safetensors: pickled weights can run code."
        raise ModelError(f"{name} has no safetensors weights; it has {pickles[0]}.", hint)
    raise ModelError(f"{name} has no weights: there is no model.safetensors.", _AGAIN)


def _read_header(path: Path, name: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
            if start == _LFS_POINTER:
                hint = "Run `git lfs pull` in it."
                raise ModelError(f"{path.name} of {name} is a Git LFS pointer, not the weights.", hint)
            size, header_size = path.stat().st_size, int.from_bytes(start[:8], "little")
            file.seek(8)
            # a number beyond the file's size is no header's
            header: dict[str, Any] = json.loads(file.read(min(header_size, size)))
            header.pop("__metadata__", None)
            end = 8 + header_size + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except OSError as error:
        raise _unreadable(f"{path.name} of", name, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path.name} of {name} is cut short or no safetensors file.", _AGAIN) from error
    if size < end:
        raise ModelError(f"{path.name} of {name} is cut short: it has {size:,} of {end:,} bytes.", _AGAIN)
    return header
