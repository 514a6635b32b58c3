"""What a folder's files alone tell: each way a folder can be broken, whole messages compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adacd_cli.errors import ModelError
from adacd_cli.loading.files import INDEX, Source, inspect, locate
from tests.golden import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as small as one can be that passes: 6 bfloat16 and 2 float32 numbers."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    weights = {"a": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.ones(2)}
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_good_folder(folder: Path) -> None:
    checkpoint = inspect(folder, "m")
    assert (checkpoint.dtype, checkpoint.elements, checkpoint.stored_bytes) == ("BF16", 8, 20)
    assert checkpoint.config == {"model_type": "llama"}


def test_shards_are_counted_together(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    save_file({"c": torch.ones(3)}, folder / "model-2-of-2.safetensors")
    index = {"a": "model-1-of-2.safetensors", "c": "model-2-of-2.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    assert inspect(folder, "m").elements == 11


def _only(folder: Path, **files: bytes) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)


def _empty(folder: Path) -> None:
    _only(folder)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def _list_as_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _latin_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"a": "\xe9"}')


def _adapter(folder: Path) -> None:
    _only(folder, adapter_config__json=b'{"base_model_name_or_path": "Qwen/Qwen3-8B"}')


def _adapter_with_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def _gguf(folder: Path) -> None:
    _only(folder, small__gguf=b"GGUF")


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _cut_in_the_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def _no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x04\0\0\0\0\0\0\0[12]" + b"\0" * 20)


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def _no_tensors(folder: Path) -> None:
    save_file({}, folder / "model.safetensors")


def _missing_shard(folder: Path) -> None:
    index = {"a": "model.safetensors", "b": "model-2-of-3.safetensors", "c": "model-3-of-3.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))


def _empty_index(folder: Path) -> None:
    (folder / INDEX).write_text("{}")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        _empty,
        _no_config,
        _broken_config,
        _list_as_config,
        _latin_config,
        _adapter,
        _adapter_with_config,
        _gguf,
        _no_weights,
        _pickle,
        _cut_short,
        _cut_in_the_header,
        _no_safetensors,
        _pointer,
        _no_tensors,
        _missing_shard,
        _empty_index,
        _no_tokenizer,
    ],
)
def test_broken_folders(folder: Path, damage: Any) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        inspect(folder, "m")
    assert caught.value.exit_code == 3
    text = f"{caught.value.message}\n{caught.value.hint}".replace(str(folder), "FOLDER")
    check(
        "loading", f"folder: {damage.__name__[1:]}", re.sub("[0-9,]+ of [0-9,]+ bytes", "N of M bytes", text)
    )


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ModelError) as caught:
        inspect(folder, "m")
    assert caught.value.message == "The folder m cannot be read: Permission denied."
    assert caught.value.hint == "Check its permissions."


def _settings(model: str, **others: Any) -> Any:
    values: dict[str, Any] = {"revision": None, "offline": True, "trust_remote_code": False}
    return SimpleNamespace(model=model, **{**values, **others})


def _locate(model: str, **others: Any) -> Source:
    return locate(_settings(model, **others), lambda line: None)


def test_folders_and_gguf_files_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _locate(str(folder)) == Source(folder)
    monkeypatch.chdir(folder.parent)
    assert _locate("model") == Source(Path("model"))  # a folder that exists wins over a hub id
    (folder / "small.gguf").write_bytes(b"GGUF\x03\0\0\0")
    assert _locate("model/small.gguf") == Source(Path("model"), gguf="small.gguf")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert _locate("~/model") == Source(folder)


def test_a_revision_of_a_folder_is_warned_of(folder: Path) -> None:
    note = "A revision names a commit on the hub, so it was not used for local files."
    assert _locate(str(folder), revision="main").warnings == (note,)


@pytest.mark.parametrize("name", ["./gone", "/gone/gone", "~/gone", "a/b/c", "gone/", "..\\gone"])
def test_a_path_that_leads_nowhere(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        _locate(name)
    assert caught.value.message == f"The model folder {name} does not exist."
    assert caught.value.hint == (
        "Check the path; a model on the hub is named owner/name, and `demo` is the bundled model."
    )


def test_a_gguf_file_that_is_not_there() -> None:
    with pytest.raises(ModelError) as caught:
        _locate("owner/gone.gguf")
    assert caught.value.message == "The model file owner/gone.gguf does not exist."


def test_a_file_that_is_no_gguf_file(folder: Path) -> None:
    name = str(folder / "config.json")
    with pytest.raises(ModelError) as caught:
        _locate(name)
    assert caught.value.message == f"{name} is a file, but not a GGUF file."
    assert caught.value.hint == "Name the folder that holds config.json and the safetensors, or a GGUF file."
