"""By what a model is known again, whichever engine runs it and whatever its file is called."""

from __future__ import annotations

import hashlib
import struct
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from adacd_cli.engine.model import LanguageModel

_PROBE = (
    "The quick brown fox (1984) said: 'naïve façade' — 3.14159 × 2 = 6.28318\n\n\tdef f(x):\n\t\treturn x**2\n"
    "こんにちは世界 你好，世界 안녕하세요 Привет, мир! مرحبا بالعالم 🙂🇩🇪 Überraschung; kill -9 $PID"
)
"""A text that tokenizers cut differently."""

_SIZES = {
    "layers": ("num_hidden_layers", "block_count"),
    "width": ("hidden_size", "embedding_length"),
    "heads": ("num_attention_heads", "attention.head_count"),
}
_FINAL_NORM = "output_norm.weight"


class Fingerprint(BaseModel):
    """What must be equal for a profile to fit a model; None is not known. `config` is the architecture and its
    sizes, the others are hexadecimal digests, of the weights that of the last norm, which quantising leaves as it
    is; there is none at a server."""

    config: str | None
    template: str
    tokenizer: str
    weights: str | None = None
    model_config = ConfigDict(frozen=True, extra="forbid")

    def differs_in(self, other: Fingerprint) -> list[str]:
        """What is known of both, and not equal."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in Fingerprint.model_fields}
        return [name for name, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def fingerprint(model: LanguageModel) -> Fingerprint:
    """The model's fingerprint; takes some tenths of a second."""
    tokenizer = model.tokenizer
    ids = [int(each) for each in tokenizer.encode(_PROBE, add_special_tokens=False)]
    try:
        template = tokenizer.get_chat_template()
    except Exception:  # transformers raises what it likes where there is none
        template = ""
    weights = None
    if model.engine == "llamacpp":
        weights = _gguf_norm(Path(model.model.path))
    elif model.engine == "torch":
        weights = _torch_norm(model.model)
    return Fingerprint(
        config=_config(model.model),
        template=_digest(template.strip().encode("utf-8", "replace")),
        tokenizer=_digest(repr((len(ids), ids)).encode()),
        weights=weights,
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _config(model: Any) -> str | None:
    """The architecture and its sizes, of a transformers model or a GGUF file."""
    if (config := getattr(model, "config", None)) is not None:
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        name = str(config.model_type).replace("_", "")
        sizes = [getattr(config, own, None) for own, _ in _SIZES.values()]
    elif name := getattr(model, "architecture", ""):
        sizes = [model.text(f"{name}.{key}") or None for _, key in _SIZES.values()]
        name = name.replace("-", "")
    else:
        return None
    described = (f"{each} {size}" for each, size in zip(_SIZES, sizes, strict=True))
    return ", ".join([name, *described])


def _norm_digest(values: Any) -> str:
    import torch

    # rounded as a bfloat16 checkpoint has it, so that a file of any number format gives the same
    return _digest(values.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())


def _torch_norm(model: Any) -> str | None:
    parameters = getattr(model, "named_parameters", None)
    norms = [each for _, each in parameters() if each.dim() == 1] if parameters else []
    return _norm_digest(norms[-1]) if norms else None


# bytes in which the list of tensors begins, of any file: the vocabulary before it takes some megabytes
_HEADER = 64 << 20
_FLOAT32 = 0


def _gguf_norm(path: Path) -> str | None:
    """From the last norm's place in the file. Its line in the list of tensors is searched for, and the list read on
    to its end, where the data begin: reading the header as a whole takes a third of a second."""
    import torch

    name = struct.pack("<Q", len(_FINAL_NORM)) + _FINAL_NORM.encode()
    try:
        with path.open("rb") as file:
            head = mmap(file.fileno(), 0, access=ACCESS_READ)
            place = found = head.find(name, 0, _HEADER)
            if found < 0:
                return None
            while info := _tensor(head, place):
                place = info[0]
            _, kind, shape, offset = _tensor(head, found) or (0, -1, (), 0)
            if kind != _FLOAT32 or len(shape) != 1:
                return None
            file.seek(-(-place // 32) * 32 + offset)
            return _norm_digest(torch.frombuffer(bytearray(file.read(4 * shape[0])), dtype=torch.float32))
    except (OSError, struct.error, ValueError):
        return None


def _tensor(head: mmap, place: int) -> tuple[int, int, tuple[int, ...], int] | None:
    """The end, number format, shape and data offset of the tensor that is listed here; None after the list."""
    (length,) = struct.unpack_from("<Q", head, place)
    name = head[place + 8 : place + 8 + length] if 0 < length <= 64 else b""
    if not name.isascii() or not name.decode().isprintable() or not name:
        return None
    place += 8 + length
    (dimensions,) = struct.unpack_from("<I", head, place)
    if not 1 <= dimensions <= 4:
        return None
    shape = struct.unpack_from(f"<{dimensions}Q", head, place + 4)
    place += 4 + 8 * dimensions
    kind, offset = struct.unpack_from("<IQ", head, place)
    return place + 12, kind, shape, offset
