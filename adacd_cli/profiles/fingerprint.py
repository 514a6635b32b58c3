"""By what a model is known again, whichever engine runs it and whatever its file is called."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from adacd_cli.profiles.profile import Fingerprint

if TYPE_CHECKING:
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


def fingerprint(model: LanguageModel) -> Fingerprint:
    """The model's fingerprint; takes some tenths of a second."""
    tokenizer = model.tokenizer
    ids = [int(each) for each in tokenizer.encode(_PROBE, add_special_tokens=False)]
    try:
        template = tokenizer.get_chat_template()
    except Exception:  # transformers raises what it likes where there is none
        template = ""
    config, weights = None, None
    if model.engine == "llamacpp":
        config, weights = _gguf_config(model.model), _gguf_norm(Path(model.model.path))
    elif model.engine == "torch":
        config, weights = _torch_config(model.model), _torch_norm(model.model)
    return Fingerprint(
        config=config,
        template=_digest(template.strip().encode("utf-8", "replace")),
        tokenizer=_digest(repr((len(ids), ids)).encode()),
        weights=weights,
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _described(architecture: str, sizes: list[Any]) -> str:
    return ", ".join([architecture, *(f"{name} {size}" for name, size in zip(_SIZES, sizes, strict=True))])


def _torch_config(model: Any) -> str | None:
    config: Any = getattr(model, "config", None)
    if config is None:
        return None
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    sizes = [getattr(config, name, None) for name, _ in _SIZES.values()]
    return _described(str(config.model_type).replace("_", ""), sizes)


def _gguf_config(model: Any) -> str:
    architecture = model.architecture
    sizes = [model.text(f"{architecture}.{key}") or None for _, key in _SIZES.values()]
    return _described(architecture.replace("-", ""), sizes)


def _norm_digest(values: Any) -> str:
    import torch

    # rounded as a bfloat16 checkpoint has it, so that a file of any number format gives the same
    return _digest(values.detach().to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())


def _torch_norm(model: Any) -> str | None:
    parameters = getattr(model, "named_parameters", None)
    norms = [each for _, each in parameters() if each.dim() == 1] if parameters else []
    return _norm_digest(norms[-1]) if norms else None


_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST, _FLOAT32 = 8, 9, 0


def _gguf_norm(path: Path) -> str | None:
    """From the last norm's place in the file, which its header tells; a library that reads headers takes
    seconds for those of a large vocabulary."""
    import torch

    try:
        with path.open("rb") as file:
            magic, _, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF":
                return None
            alignment = 32
            for _ in range(pairs):
                name, value = _text(file), _value(file, *struct.unpack("<I", file.read(4)))
                alignment = value if name == b"general.alignment" else alignment
            found = None
            for _ in range(tensors):
                name = _text(file)
                (dimensions,) = struct.unpack("<I", file.read(4))
                shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
                kind, offset = struct.unpack("<IQ", file.read(12))
                if name == _FINAL_NORM.encode() and kind == _FLOAT32:
                    found = shape[0], offset
            if found is None:
                return None
            file.seek(-(-file.tell() // alignment) * alignment + found[1])
            return _norm_digest(torch.frombuffer(bytearray(file.read(4 * found[0])), dtype=torch.float32))
    except (OSError, struct.error, KeyError, ValueError):
        return None


def _text(file: BinaryIO) -> bytes:
    return file.read(*struct.unpack("<Q", file.read(8)))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind == _LIST:
        kind, count = struct.unpack("<IQ", file.read(12))
        if kind in _FORMATS:
            file.seek(count * struct.calcsize(_FORMATS[kind]), 1)
            return None
        for _ in range(count):
            _value(file, kind)
        return None
    code = _FORMATS[kind]
    return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]
