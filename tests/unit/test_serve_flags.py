"""What the flags of `adacd serve` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from adacd_cli.cli.serve import address_of, bytes_of, id_of, key_of, origins_of
from adacd_cli.config import Settings


@pytest.mark.parametrize(
    ("model", "served", "known_as"),
    [
        ("demo", None, "demo"),
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B"),
        ("/home/me/secret/model.Q4.gguf", None, "model.Q4.gguf"),
        ("./models/mine/", None, "mine"),
        ("~/models/mine", None, "mine"),
        ("http://127.0.0.1:8080/v1", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("http://127.0.0.1:8080/v1", "/srv/secret/model.gguf", "model.gguf"),
    ],
)
def test_the_models_id_tells_no_path(model: str, served: str | None, known_as: str) -> None:
    assert id_of(Settings(model=model), served) == known_as


def test_a_folder_of_the_working_directory_is_named_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert id_of(Settings(model="owner/name")) == "name"
    assert id_of(Settings(model=".")) == tmp_path.name


def test_the_key_comes_from_the_flag_or_else_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(None) is None
    monkeypatch.setenv("ADACD_API_KEY", "sk-1")
    assert (key_of(None), key_of("sk-2")) == ("sk-1", "sk-2")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("500000", 500_000), ("2k", 2048), ("4M", 4 * 2**20)])
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_origins_and_addresses_are_as_browsers_write_them() -> None:
    assert origins_of(["HTTP://Localhost:3000/", "*"]) == ("http://localhost:3000", "*")
    assert (address_of("::1", 80), address_of("127.0.0.1", 80)) == ("http://[::1]:80", "http://127.0.0.1:80")
