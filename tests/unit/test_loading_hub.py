"""The hub step, against a hub of our own on a local port: what is downloaded, refused, cached, how soon."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

from adacd_cli.config import Settings, change
from adacd_cli.errors import ModelError
from adacd_cli.loading.files import locate
from adacd_cli.loading.hub import Source, fetch
from tests.golden import check

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHOLE = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "modeling_own.py": b"code",
    "README.md": b"words",
}
SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    ).encode(),
    "model-1.safetensors": b"one",
    "model-2.safetensors": b"two",
    "consolidated.safetensors": b"the same once more",
}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for `own/…`; models and refusals are class attributes."""

    models: ClassVar[dict[str, dict[str, bytes]]] = {"own/whole": WHOLE, "own/sharded": SHARDED}
    refusals: ClassVar[dict[str, tuple[int, str]]] = {
        "own/nothing": (401, "RepoNotFound"),
        "own/gated": (403, "GatedRepo"),
        "own/closed": (403, ""),
        "own/broken": (500, ""),
    }

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = path.removeprefix("/api/models").split("/")
        model = "/".join(asked[1:3])
        if model in self.refusals:
            status, code = self.refusals[model]
            return self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "no"})
        files = self.models[model]
        if not path.startswith("/api"):
            content = files["/".join(asked[5:])]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})
        if asked[3:4] == ["tree"]:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            return self._answer(200, json.dumps(entries).encode(), {})
        if asked[3:4] == ["revision"] and asked[4] not in ("main", "v1", COMMIT):
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in files]
        self._answer(200, json.dumps({"id": model, "sha": COMMIT, "siblings": siblings}).encode(), {})

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def address() -> Iterator[str]:
    """Where the hub of our own listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _endpoint(monkeypatch, address)


def _endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def get(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    with_code: bool = False,
    gguf: str | None = None,
) -> Source:
    settings = Settings(revision=revision, offline=offline, trust_remote_code=with_code)
    return fetch(name, gguf, settings, lambda line: None)


def _refusal(action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.exit_code == 3
    return caught.value.message, caught.value.hint


def _files(snapshot: Source) -> set[str]:
    return {path.relative_to(snapshot.folder).as_posix() for path in snapshot.folder.rglob("*.*")}


@pytest.mark.usefixtures("hub")
def test_downloads_safetensors_configs_and_tokenizer_and_nothing_else() -> None:
    snapshot = get("own/whole")
    assert _files(snapshot) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (snapshot.folder / "model.safetensors").read_bytes() == b"weights"
    assert (snapshot.revision, snapshot.warnings) == (COMMIT, ())
    assert _files(get("own/sharded")) == {
        "config.json",
        "model.safetensors.index.json",
        "model-1.safetensors",
        "model-2.safetensors",
    }


@pytest.mark.usefixtures("hub")
def test_downloads_code_only_when_it_is_trusted() -> None:
    assert "modeling_own.py" in _files(get("own/whole", with_code=True))


@pytest.mark.usefixtures("hub")
def test_a_downloaded_model_is_there_offline_and_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get("own/whole")
    assert get("own/whole", offline=True) == first
    assert get("own/whole", offline=True, revision=COMMIT) == first
    _endpoint(monkeypatch, "http://127.0.0.1:1")
    note = "The hub cannot be reached: the copy of 'own/whole' on this machine is used."
    assert get("own/whole") == Source(first.folder, None, COMMIT, (note,))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "revision"),
    [
        ("own/nothing", None),
        ("own/gated", None),
        ("own/closed", None),
        ("own/broken", None),
        ("own/whole", "v9"),
    ],
)
def test_the_hubs_refusals(name: str, revision: str | None) -> None:
    check("loading", f"hub: {name} {revision}", "\n".join(_refusal(lambda: get(name, revision=revision))))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.Q4_K_M.gguf"])
def test_other_weights_are_refused_before_they_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setitem(Hub.models, "own/other", {"config.json": b"{}", file: b""})
    check("loading", f"hub: {file}", "\n".join(_refusal(lambda: get("own/other"))))


GGUFS = {
    "README.md": b"words",
    "model-Q4_K_M.gguf": b"four",
    "model-Q8_0.gguf": b"eight",
    "model.UD-Q8_0.gguf": b"eight",
    "mmproj-BF16.gguf": b"eyes",
    "BF16/model-BF16-00001-of-00002.gguf": b"one",
    "BF16/model-BF16-00002-of-00002.gguf": b"two",
}


@pytest.mark.usefixtures("hub")
def test_a_gguf_file_is_downloaded_by_its_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Hub.models, "own/quantised", GGUFS)
    for offline in (False, True):
        snapshot = get("own/quantised", gguf="q4_k_m", offline=offline)
        assert (snapshot.gguf, _files(snapshot)) == ("model-Q4_K_M.gguf", {"model-Q4_K_M.gguf"})
        assert (snapshot.folder / "model-Q4_K_M.gguf").read_bytes() == b"four"
    divided = get("own/quantised", gguf="BF16")
    assert divided.gguf == "BF16/model-BF16-00001-of-00002.gguf"
    assert (divided.folder / "BF16/model-BF16-00002-of-00002.gguf").read_bytes() == b"two"
    assert get("own/quantised", gguf="model-Q8_0.gguf").gguf == "model-Q8_0.gguf"


@pytest.mark.usefixtures("hub")
def test_a_quantisation_that_is_not_there_or_not_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Hub.models, "own/quantised", GGUFS)
    for model, wanted in (("quantised", "Q2_K"), ("quantised", "Q8_0"), ("whole", "Q4_K_M")):
        refused = _refusal(lambda model=model, wanted=wanted: get(f"own/{model}", gguf=wanted))
        check("loading", f"hub: own/{model}:{wanted}", "\n".join(refused))
    get("own/quantised", gguf="Q4_K_M")
    message, _ = _refusal(lambda: get("own/quantised", gguf="BF16", offline=True))
    assert message == (
        "Model 'own/quantised' has no GGUF file of 'BF16' on this machine; its GGUF files are: "
        "model-Q4_K_M.gguf."
    )


@pytest.mark.usefixtures("hub")
def test_a_quantised_model_is_located_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Hub.models, "own/quantised", GGUFS)
    for name in ("own/quantised:Q4_K_M", "https://huggingface.co/own/quantised/blob/main/model-Q4_K_M.gguf"):
        source = locate(Settings(model=name), lambda line: None)
        assert (source.gguf, source.revision) == ("model-Q4_K_M.gguf", COMMIT)
        assert (source.folder / "model-Q4_K_M.gguf").read_bytes() == b"four"
    source = locate(Settings(model="own/quantised:BF16"), lambda line: None)
    assert (source.folder.name, source.gguf) == ("BF16", "model-BF16-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("written", "name", "revision"),
    [
        ("https://huggingface.co/own/whole", "own/whole", None),
        ("https://huggingface.co/own/whole/tree/main?library=x", "own/whole", None),
        ("huggingface.co/own/whole/", "own/whole", None),
        ("https://hf.co/own/whole/tree/v1", "own/whole", "v1"),
        ("hf://own/whole", "own/whole", None),
        ("hf://models/own/whole@v1", "own/whole", "v1"),
        ("hf.co/own/whole:Q4_K_M", "own/whole:Q4_K_M", None),
        ("https://huggingface.co/own/whole/resolve/main/a/b.gguf?download=true", "own/whole:a/b.gguf", None),
    ],
)
def test_a_page_of_the_hub_stands_for_the_model(written: str, name: str, revision: str | None) -> None:
    settings = Settings(model=written)
    assert (settings.model, settings.revision, settings.served) == (name, revision, False)
    assert Settings(model="http://localhost/v1", tokenizer=written).tokenizer == name
    again = change(Settings(), "model", written, "/set")
    assert (again.model, again.revision) == (name, revision)


@pytest.mark.parametrize(
    "page", ["datasets/own/set", "own/whole/tree/main/folder", "own/whole/discussions/3"]
)
def test_another_page_of_the_hub_is_answered_with_what_to_type(page: str) -> None:
    settings = Settings(model=f"https://huggingface.co/{page}")
    assert not settings.served
    assert _refusal(lambda: locate(settings, lambda line: None)) == (
        f"https://huggingface.co/{page} is not the page of a whole model on the hub.",
        "Type owner/name, or owner/name:Q4_K_M for one of its GGUF files.",
    )


ELSEWHERE = "name a folder or GGUF file, or use `--model demo`, the bundled model."


def test_a_model_that_is_not_here_while_offline() -> None:
    hint = f"Run once without --offline and HF_HUB_OFFLINE, {ELSEWHERE}"
    message = "Model 'own/whole' is not on this machine, and adacd is offline."
    assert _refusal(lambda: get("own/whole", offline=True)) == (message, hint)
    message = "Revision 'v1' of model 'own/whole' is not on this machine, and adacd is offline."
    assert _refusal(lambda: get("own/whole", offline=True, revision="v1")) == (message, hint)


def test_the_environments_offline_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = "Model 'own/whole' is not on this machine, and adacd is offline."
    assert _refusal(lambda: get("own/whole"))[0] == message


@pytest.mark.parametrize("hub_is", ["refusing", "silent", "unknown"])
def test_a_hub_out_of_reach_is_noticed_within_three_seconds(
    hub_is: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.socket()) as busy:
        busy.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        if hub_is == "silent":  # a full backlog: connections hang, as behind a firewall that drops packets
            busy.listen(0)
            waiting = [socket.socket() for _ in range(4)]
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(busy.getsockname())
        nowhere = "http://no.such.host.invalid"
        _endpoint(monkeypatch, nowhere if hub_is == "unknown" else f"http://{address}")
        start = time.monotonic()
        message, hint = _refusal(lambda: get("own/whole"))
        assert time.monotonic() - start < 3
    assert message == "Model 'own/whole' is not on this machine, and the hub cannot be reached."
    assert hint == f"Connect to the network, {ELSEWHERE}"


def test_a_proxy_stands_for_the_hub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy the hub's own address answers nobody, and is not asked for."""
    _endpoint(monkeypatch, "http://no.such.host.invalid")
    monkeypatch.setenv("http_proxy", address)
    close_session()  # huggingface_hub reads the proxies once a session
    assert get("own/whole").revision == COMMIT
    close_session()


def test_a_download_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setattr("adacd_cli.loading.hub.REPLY_SECONDS", 0.2)
        _endpoint(monkeypatch, f"http://127.0.0.1:{deaf.getsockname()[1]}")
        assert _refusal(lambda: get("own/whole")) == (
            "The download of 'own/whole' broke off: timed out.",
            "Run the same command again: what is already here is kept.",
        )


@pytest.mark.parametrize("name", ["two words", "a--b/..", "own/whole/"])
def test_what_is_no_name_at_all(name: str) -> None:
    assert _refusal(lambda: get(name)) == (
        f"'{name}' is neither a folder or file here nor the name of a model on the hub.",
        "Name a hub id such as Qwen/Qwen3-8B, a folder, a GGUF file, or `demo`.",
    )
