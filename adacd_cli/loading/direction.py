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
    """Where a direction comes from: the model and its commit on the hub, and where it was measured: at the input of
    block `layer`, 0-based, at `position`, -1 being the prompt's last. `facts` says how it was chosen."""

    model: str
    revision: str | None
    layer: int
    position: int
    hidden_size: int
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_folder(folder: Path) -> None:
    """Makes the folder; raises OutputError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_direction(folder: Path, vector: torch.Tensor, card: DirectionCard) -> None:
    """Writes both files, or raises OutputError; what was there before then stays."""
    from safetensors.torch import save  # in memory: a full disk is then an OSError like any other

    tensors = save({_TENSOR: vector.detach().float().cpu().contiguous()})
    text = json.dumps(asdict(card), ensure_ascii=False, indent=2) + "\n"
    prepare_folder(folder)
    contents = {folder / "direction.safetensors": tensors, folder / "direction.json": text.encode()}
    partial = {path: path.with_name(f"{path.name}.partial") for path in contents}
    try:
        for path, content in contents.items():
            partial[path].write_bytes(content)
        for path, written in partial.items():
            written.replace(path)
    except OSError as error:
        for written in partial.values():
            written.unlink(missing_ok=True)
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    what = f"The direction could not be written to {str(folder)!r}: {error.strerror or error}."
    return OutputError(what, "Name a folder that you may write to.")


def read_direction(folder: str, hidden_size: int) -> tuple[torch.Tensor, DirectionCard]:
    """The vector and where it comes from. ModelError where the folder holds no direction, or one of another width
    than the model's."""
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
        sizes = f"{vector.numel()} numbers, and the model's hidden size is {hidden_size}"
        hint = f"A direction belongs to the model that it was made with. {_AGAIN}"
        raise ModelError(f"The direction in {folder} has {sizes}.", hint)
    return vector, card
