"""A direction of the residual stream in a folder: `direction.safetensors` and, in words, `direction.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from adacd_cli.errors import ModelError, OutputError

if TYPE_CHECKING:
    import torch

_TENSOR = "direction"
_AGAIN = "Make it with `adacd direction build`."


@dataclass(frozen=True)
class DirectionCard:
    """Where a direction comes from.

    Attributes:
        model: what the model was called when it was made.
        revision: commit on the hub; None elsewhere.
        layer: the block at whose input it was measured, 0-based.
        position: the position it was measured at, counted from the end of the prompt, -1 is the last.
        hidden_size: its length.
        facts: how it was chosen: scores, KL, numbers of prompts, versions.
    """

    model: str
    revision: str | None
    layer: int
    position: int
    hidden_size: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_folder(folder: Path) -> None:
    """Makes the folder, and finds out that it can be written to.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_direction(folder: Path, vector: torch.Tensor, card: DirectionCard) -> None:
    """Writes both files; where that fails, what was there before stays.

    Raises:
        OutputError: the folder cannot be written.
    """
    from safetensors.torch import save  # in memory: a full disk is then an OSError like any other

    tensors = save({_TENSOR: vector.detach().float().cpu().contiguous()})
    text = json.dumps(asdict(card), ensure_ascii=False, indent=2) + "\n"
    prepare_folder(folder)
    contents = {"direction.safetensors": tensors, "direction.json": text.encode()}
    partial = {folder / f"{name}.partial": folder / name for name in contents}
    try:
        for path, content in zip(partial, contents.values(), strict=True):
            path.write_bytes(content)
        for path, final in partial.items():
            path.replace(final)
    except OSError as error:
        for path in partial:
            path.unlink(missing_ok=True)
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"The direction could not be written to {str(folder)!r}: {error.strerror or error}.",
        "Name a folder that you may write to.",
    )


def read_direction(folder: str, hidden_size: int) -> tuple[torch.Tensor, DirectionCard]:
    """The vector and where it comes from.

    Raises:
        ModelError: the folder holds no direction, or one of another width than the model's.
    """
    from safetensors.torch import load_file

    path = Path(folder).expanduser()
    try:
        card = DirectionCard(**json.loads((path / "direction.json").read_text(encoding="utf-8")))
        vector = load_file(path / "direction.safetensors")[_TENSOR]
        if not vector.isfinite().all() or not vector.any():
            raise ValueError("no direction")
    except OSError as error:
        raise ModelError(f"There is no direction in {folder}: {error.strerror or error}.", _AGAIN) from error
    except Exception as error:  # damaged JSON or safetensors, each with classes of its own
        raise ModelError(f"The direction in {folder} is damaged.", _AGAIN) from error
    if vector.shape != (hidden_size,):
        raise ModelError(
            f"The direction in {folder} has {vector.numel()} numbers, and the model's hidden size is "
            f"{hidden_size}.",
            f"A direction belongs to the model that it was made with. {_AGAIN}",
        )
    return vector, card
