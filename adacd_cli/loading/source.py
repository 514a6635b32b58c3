"""What `--model` names: the demo, a folder, a GGUF file or a hub id; each ends as files on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adacd_cli.errors import ModelError
from adacd_cli.loading.hub import fetch

if TYPE_CHECKING:
    from adacd_cli.config import Settings

GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Source:
    """A model's files on this machine.

    Attributes:
        folder: where they lie.
        gguf: name of the GGUF file in the folder; None for a folder of safetensors.
        revision: commit on the hub; None for what was not taken from there.
        warnings: what the user should know, one sentence each.
    """

    folder: Path
    gguf: str | None = None
    revision: str | None = None
    warnings: tuple[str, ...] = ()


def locate(settings: Settings, progress: Callable[[str], None], *, weights: bool = True) -> Source:
    """Finds the files of `settings.model`, downloading a hub id that is not here yet.

    Args:
        settings: `model`, `revision`, `trust_remote_code` and `offline` are read.
        progress: gets short lines on what is being done.
        weights: whether they are wanted too, or the tokenizer alone.

    Raises:
        ModelError: there is no such file, folder or hub id, or it cannot be had.
    """
    name = settings.model
    if name == "demo":
        from adacd_cli.demo import model_folder

        return Source(model_folder())
    path = Path(name).expanduser()
    if path.exists() or looks_like_a_path(name):
        unused = ("A revision is a thing of the hub: it was not used for local files.",)
        warnings = unused if settings.revision is not None else ()
        return Source(*_local(name, path), warnings=warnings)
    snapshot = fetch(
        name,
        revision=settings.revision,
        offline=settings.offline,
        with_code=settings.trust_remote_code,
        with_weights=weights,
        progress=progress,
    )
    return Source(snapshot.folder, revision=snapshot.commit, warnings=snapshot.warnings)


def looks_like_a_path(name: str) -> bool:
    """Whether the name can only be meant as a path; a hub id is `name` or `owner/name`."""
    return (
        name.startswith((".", "/", "~"))
        or name.endswith((".gguf", "/"))
        or name.count("/") > 1
        or "\\" in name
    )


def _local(name: str, path: Path) -> tuple[Path, str | None]:
    if not path.exists():
        kind = "file" if path.suffix == ".gguf" else "folder"
        raise ModelError(
            f"The model {kind} {name} does not exist.",
            "Check the path; a model on the hub is named owner/name, and `demo` is the bundled model.",
        )
    if path.is_dir():
        return path, None
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise ModelError(
            f"The model file {name} cannot be read: {error.strerror or error}.",
            "Name a file that you may read.",
        ) from error
    if magic != GGUF_MAGIC:
        raise ModelError(
            f"{name} is a file, but not a GGUF file.",
            "Name the folder that holds config.json and the safetensors, or a GGUF file.",
        )
    return path.parent, path.name
