"""What an endpoint said, on disk: kept at once, shared, and named when it cannot be."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from adacd_cli.errors import OutputError
from adacd_cli.evaluation.judges import default_cache_folder
from adacd_cli.evaluation.judges.endpoint import FILE_NAME, ReplyCache, reply_key


def test_replies_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with ReplyCache(folder) as cache, ReplyCache(folder) as other:
        assert cache.get("k") is None
        cache.put("k", "full_refusal é \ud800", model="m", template="t")
        assert other.get("k") == "full_refusal é ?"
        other.put("k", "invalid", model="m", template="t")
        assert cache.get("k") == "invalid"
    with ReplyCache(folder) as cache:
        assert cache.get("k") == "invalid"


def test_without_a_folder_nothing_is_kept() -> None:
    with ReplyCache(None) as cache:
        cache.put("k", "full_refusal", model="m", template="t")
        assert cache.get("k") is None


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_run_keeps_what_it_had(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from adacd_cli.evaluation.judges.endpoint import ReplyCache\n"
        "cache = ReplyCache(Path(sys.argv[1]))\n"
        "for number in range(50):\n"
        "    cache.put(str(number), f'reply {number}', model='m', template='t')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=root, check=False)
    assert killed.returncode == -9
    with ReplyCache(tmp_path) as cache:
        assert [cache.get(str(number)) for number in range(50)] == [f"reply {n}" for n in range(50)]


def test_the_key_is_of_everything_that_decides() -> None:
    base = ("model", "refusal-1", "prompt", "completion")
    others = [(*base[:place], f"{base[place]}!", *base[place + 1 :]) for place in range(4)]
    shifted = ("model", "refusal-1", "promptc", "ompletion")
    keys = [
        reply_key(*parts) for parts in (base, *others, shifted, ("m", "t", '","', ""), ("m", "t", "", '","'))
    ]
    assert len(set(keys)) == len(keys)
    assert reply_key(*base) == reply_key(*base)
    assert reply_key("m", "t", "\ud800", "") != reply_key("m", "t", "?", "")


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        ReplyCache(tmp_path / "file" / "folder")
    assert caught.value.message == (
        f"The judge's cache {tmp_path / 'file' / 'folder' / FILE_NAME} cannot be used: Not a directory."
    )
    assert caught.value.hint == "Name another folder for it, or move that file away."


def test_a_full_disk(tmp_path: Path) -> None:
    with ReplyCache(tmp_path) as cache:
        cache._database.execute("PRAGMA max_page_count = 5")  # type: ignore[union-attr]
        with pytest.raises(OutputError, match=r"cannot be written: database or disk is full\.$"):
            for number in itertools.count():
                cache.put(str(number), "x" * 1000, model="m", template="t")
        assert cache.get("0") == "x" * 1000


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the place is another there")
def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "adacd"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "adacd"
