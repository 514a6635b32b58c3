"""The model hub: a hub id becomes a folder on this machine, from the cache or by a download. All network traffic of
adacd's loading happens here, and never waits long for a hub that is not there: what comes after reads a local
folder. Weights are downloaded only when they are safetensors."""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from adacd_cli.config import Settings
from adacd_cli.errors import ModelError, first_line
from adacd_cli.loading.progress import Progress, bar_class, muted

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

CONNECT_SECONDS = 1.5  # for a connection to the hub, before it counts as out of reach
REPLY_SECONDS = 10.0  # for the answer of a hub that can be reached
INDEX = "model.safetensors.index.json"
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")


@dataclass(frozen=True)
class Source:
    """A model's files on this machine: `gguf` is the GGUF file's name in the folder, of a divided one the first,
    None for safetensors; `revision` is the commit on the hub, None for what was not taken from there."""

    folder: Path
    gguf: str | None = None
    revision: str | None = None
    warnings: tuple[str, ...] = ()


def go_offline() -> None:
    """Forbids the hub to this process; it must come before transformers or huggingface_hub is imported."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def fetch(
    name: str, gguf: str | None, settings: Settings, progress: Progress, *, weights: bool = True
) -> Source:
    """The folder of a hub id, downloaded where this machine lacks it and the hub can be reached; of its weights
    only the GGUF file of a quantisation or a name, where GGUF is one, and none without `weights`. ModelError where
    there is no such model or revision, no access to it, or the hub is out of reach and it is not here."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"'{name}' is neither a folder or file here nor the name of a model on the hub.",
            "Name a hub id such as Qwen/Qwen3-8B, a folder, a GGUF file, or `demo`.",
        ) from error
    elsewhere = "name a folder or GGUF file, or use `--model demo`, the bundled model."
    if settings.offline or constants.HF_HUB_OFFLINE:
        why, remedy = "adacd is offline", f"Run once without --offline and HF_HUB_OFFLINE, {elsewhere}"
        return _cached(name, gguf, settings.revision, why, remedy)
    progress("Asking the hub")
    if not _reachable(constants.ENDPOINT):
        why, remedy = "the hub cannot be reached", f"Connect to the network, {elsewhere}"
        note = f"The hub cannot be reached: the copy of '{name}' on this machine is used."
        return replace(_cached(name, gguf, settings.revision, why, remedy), warnings=(note,))
    with muted("huggingface_hub"):
        return _download(name, gguf, settings, progress, weights)


def _reachable(endpoint: str) -> bool:
    """Whether something answers at the hub's address, or at the proxy's that stands before it."""
    address = urlsplit(endpoint)
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.hostname or ""):
        address = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    place = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    answered = Event()

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection(place, timeout=CONNECT_SECONDS).close()
            answered.set()

    # in a thread, because looking a name up knows no timeout
    Thread(target=connect, daemon=True).start()
    return answered.wait(CONNECT_SECONDS)


def _cached(name: str, gguf: str | None, revision: str | None, why: str, remedy: str) -> Source:
    from huggingface_hub import constants

    # the cache's own layout: its functions know no folder of which only some files were downloaded
    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    branch = cache / "refs" / (revision or "main")
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else revision or "none"
    folder = cache / "snapshots" / commit
    if not folder.is_dir() or not (gguf or (folder / "config.json").exists()):
        model = f"Model '{name}'" if revision is None else f"Revision '{revision}' of model '{name}'"
        raise ModelError(f"{model} is not on this machine, and {why}.", remedy)
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*.gguf")}
    return Source(folder, gguf and _ggufs(name, gguf, files, "on this machine")[0], commit)


def _download(
    name: str, gguf: str | None, settings: Settings, progress: Progress, with_weights: bool
) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    revision, first = settings.revision, None

    def get(patterns: list[str]) -> Path:
        # by the branch's name, not the commit's: the cache then knows the branch when it is offline
        bar = bar_class(progress)
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=bar))

    try:
        info = HfApi().model_info(name, revision=revision, timeout=REPLY_SECONDS)
        files = {file.rfilename for file in info.siblings or ()}
        if gguf is not None:
            first, *_ = parts = _ggufs(name, gguf, files, "on the hub")
            folder = get(parts)
        else:
            folder = get([*_SMALL_FILES, *(("*.py",) if settings.trust_remote_code else ())])
            if with_weights and (weights := _weights(name, folder, files)):
                get(sorted(weights))
    except ModelError:
        raise
    except HfHubHTTPError as error:
        raise _refused(name, revision, error) from error
    except Exception as error:  # a broken connection or a full disk: each library below raises its own
        what = f"The download of '{name}' broke off: {first_line(error).rstrip('.')}."
        raise ModelError(what, "Run the same command again: what is already here is kept.") from error
    return Source(folder, first, folder.name)


def _weights(name: str, folder: Path, files: set[str]) -> set[str]:
    """The safetensors files to download; a model without any is refused before gigabytes are fetched."""
    if INDEX in files:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map", {})
        return set(shards.values())
    if "model.safetensors" in files:
        return {"model.safetensors"}
    if "adapter_config.json" in files:
        return set()  # the folder's check says what an adapter is
    others = sorted(file for file in files if file.endswith((".gguf", ".bin", ".pth", ".pt")))
    hint = "Choose a model with safetensors: pickled weights can run code."
    if others and others[0].endswith(".gguf"):
        hint = f"Name one of its GGUF files, e.g. {name}:{others[0]}."
    found = f"; it has {others[0]}" if others else ""
    raise ModelError(f"Model '{name}' has no safetensors weights{found}.", hint)


def _ggufs(name: str, wanted: str, files: set[str], where: str) -> list[str]:
    """The GGUF file of that name or quantisation, or the parts of a divided one in their order."""
    weights = sorted(
        each for each in files if each.lower().endswith(".gguf") and "mmproj" not in each.lower()
    )
    part = r"(-\d{5}-of-\d{5})?\.gguf$"
    named = re.compile(rf"(^|[-._/]){re.escape(wanted)}{part}", re.IGNORECASE)
    found = [file for file in weights if file == wanted] or [file for file in weights if named.search(file)]
    if len({re.sub(part, "", file) for file in found}) == 1:
        return found
    shown = found or weights
    what = f"several GGUF files of '{wanted}'" if found else f"no GGUF file of '{wanted}'"
    raise ModelError(
        f"Model '{name}' has {what} {where}; its GGUF files are: {', '.join(shown[:8]) or 'none'}.",
        f"Name one of them, e.g. {name}:{shown[0]}." if shown else f"Try `--model {name}` alone.",
    )


def _refused(name: str, revision: str | None, error: HfHubHTTPError) -> ModelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = getattr(error.response, "status_code", "an error")
    log_in = "run `hf auth login` or set HF_TOKEN to a token that may read it."
    message = f"The hub could not give '{name}' (status {status})."
    hint = "Try again later, or use --offline if the model is already on this machine."
    if isinstance(error, GatedRepoError):
        message = f"Model '{name}' is gated, and this machine has no access to it."
        hint = f"Accept its terms at https://huggingface.co/{name}, then {log_in}"
    elif isinstance(error, RevisionNotFoundError):
        message, hint = f"Model '{name}' has no revision '{revision}'.", "Name a branch, tag or commit of it."
    elif isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        message = f"There is no model '{name}' on the hub that this machine may read (status {status})."
        hint = f"Check the name; for a private model {log_in}"
    return ModelError(message, hint)
