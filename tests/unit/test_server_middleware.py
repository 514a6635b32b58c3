"""Who may ask, from where, how much, and what is written about it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from adacd_cli.server import middleware
from tests.golden import check
from tests.serving import ALPHABET, CHAT, Site, letters, scope, site

KEY = "sk-unique"
WRONG, MISSING = "wrong key", "no key"


def check_error(
    response: Any, status: int, code: str, name: str, *, kind: str = "invalid_request_error"
) -> None:
    """Checks an error in OpenAI's format, and its message by the golden file."""
    error = response.json()["error"]
    check("server", name, error.pop("message"))
    assert (response.status_code, error) == (status, {"type": kind, "param": None, "code": code})


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.fixture(scope="module")
def locked() -> Iterator[Site]:
    with site(letters(), key=KEY, origins=("http://app.example",), max_body_bytes=1000) as server:
        yield server


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        (f"Bearer {KEY}", None),
        (f"bearer   {KEY} ", None),
        (basic(KEY), None),
        (None, MISSING),
        ("", MISSING),
        ("Bearer", MISSING),
        ("Basic !!!", MISSING),
        ("Basic " + base64.b64encode(KEY.encode()).decode(), MISSING),
        (KEY, MISSING),
        (f"Bearer {KEY}x", WRONG),
        (f"Bearer {KEY[:-1]}", WRONG),
        (basic(""), WRONG),
        ({"x-api-key": KEY}, None),
        ({"api-key": KEY}, None),
        ({"x-api-key": "dummy", "Authorization": f"Bearer {KEY}"}, None),
        ({"x-api-key": f"{KEY}x"}, WRONG),
        ("Bearer \xff\xfe", WRONG),
    ],
)
def test_a_key_is_required_on_every_route_but_health(locked: Site, header: Any, refusal: str | None) -> None:
    headers = header if isinstance(header, dict) else {}
    if isinstance(header, str):
        headers = {"Authorization": header.encode("latin-1")}
    responses = [
        locked.http.get("/v1/models", headers=headers),
        locked.http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}, headers=headers),
        locked.http.get("/metrics", headers=headers),
        locked.http.get("/openapi.json", headers=headers),
    ]
    if refusal is None:
        assert [each.status_code for each in responses] == [200] * 4
    else:
        for response in responses:
            check_error(response, 401, "invalid_api_key", refusal, kind="authentication_error")
        assert responses[0].headers["www-authenticate"] == "Bearer"
    assert locked.http.get("/health", headers=headers).status_code == 200


def test_the_page_asks_a_browser_for_the_key(locked: Site) -> None:
    for path in ("/", "/page/x.js"):
        response = locked.http.get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Basic realm="adacd", charset="UTF-8"'


def test_a_preflight_needs_no_key_and_other_origins_get_no_permission(locked: Site) -> None:
    def preflight(origin: str) -> Any:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        return locked.http.options("/v1/chat/completions", headers={"Origin": origin, **asks})

    allowed, other = preflight("http://app.example"), preflight("http://evil.example")
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (
        200,
        "http://app.example",
    )
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers
    refused = locked.http.get("/v1/models", headers={"Origin": "http://app.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
        401,
        "http://app.example",
    )


@pytest.mark.parametrize("counted", [True, False])
def test_a_body_that_is_too_large_is_refused_while_it_comes(locked: Site, counted: bool) -> None:
    pieces = 0

    def endless() -> Iterator[bytes]:
        nonlocal pieces
        for _ in range(1000):
            pieces += 1
            yield b"x" * 100

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    if counted:
        headers["Content-Length"] = "100000"
    response = locked.http.post("/v1/chat/completions", content=endless(), headers=headers)
    check_error(response, 413, "body_too_large", "too large a body")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_page_can_send_without_asking_is_refused(locked: Site, kind: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": kind}
    response = locked.http.post("/v1/completions", content=b"{}", headers={**headers, "Origin": "null"})
    assert (response.status_code, response.json()["error"]["code"]) == (415, "not_json")
    # a program may leave the header out, as `curl -d` does
    response = locked.http.post("/v1/completions", content=b"{}", headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example:8000", 403),
        ("", 403),
    ],
)
def test_without_a_key_a_local_server_answers_to_its_own_names_only(host: str, status: int) -> None:
    with site(letters(), ready=False, local="127.0.0.1") as server:
        response = server.http.get("/openapi.json", headers={"Host": host})
        assert response.status_code == status
        if status == 403:
            check_error(response, 403, "wrong_host", "another host", kind="permission_error")


@pytest.mark.parametrize("logged", [False, True])
def test_what_was_said_is_written_only_where_that_is_wanted(
    capsys: pytest.CaptureFixture[str], logged: bool
) -> None:
    with site(letters(), quiet=False, log_prompts=logged) as server:
        secret = "my \x1b secret"
        body = {"messages": [{"role": "user", "content": secret}], "max_tokens": 26}
        server.chat(**body)
        server.http.post("/v1/chat/completions?key=secret", json={**CHAT, "n": "secret"})
        server.http.get("/%1Bsecret%0A?secret=1")
    written = capsys.readouterr().err
    lines = [line for line in written.splitlines() if not line.startswith("{")]
    assert [re.sub(r" [0-9.]+ s", "", line) for line in lines] == [
        "testclient POST /v1/chat/completions 200",
        "testclient POST /v1/chat/completions 400 · n",
        r"testclient GET /\x1bsecret\n 404 · unknown_route",
    ]
    assert ("my \\u001b secret" in written and ALPHABET in written) == logged
    assert "\x1b" not in written


def test_errors_of_no_route_have_the_same_shape() -> None:
    with site(letters()) as server:
        nowhere, method = server.http.get("/v1/nothing"), server.http.get("/v1/completions")
        other = server.http.post("/v1/models")
    check_error(nowhere, 404, "unknown_route", "unknown route", kind="not_found_error")
    check_error(method, 405, "method_not_allowed", "wrong method")
    check_error(other, 405, "method_not_allowed", "wrong method of a route to read")
    assert (method.headers["allow"], other.headers["allow"]) == ("POST", "GET, HEAD")


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.2)
    sent: list[Any] = []

    async def receive() -> Any:  # a byte now and then
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    with site(letters()) as server:
        asyncio.run(server.app(scope("/v1/completions"), receive, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "timeout"


def test_a_body_that_does_not_come_keeps_no_server_that_is_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "_CHECK_SECONDS", 0.05)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    with site(letters()) as server:

        async def receive() -> Any:
            server.worker.stop()
            await asyncio.sleep(60)

        asyncio.run(server.app(scope("/v1/completions"), receive, send))
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["code"] == "stopping"


@pytest.mark.parametrize("path", ["/health", "/", "/v1/models", "/metrics"])
def test_what_looks_whether_it_is_there_may_ask_for_the_head(path: str) -> None:
    with site(letters()) as server:
        response = server.http.head(path)
    assert (response.status_code, response.content) == (200, b"")


def test_a_path_is_found_in_other_spellings_and_counted_as_one(locked: Site) -> None:
    headers = {"x-api-key": KEY}
    for path in ("/models", "/models/letters", "/v1/models/", "/v1/v1/models", "/v1/health/", "/health//"):
        assert locked.http.get(path, headers=headers).status_code == 200, path
    before = locked.number("adacd_requests_total", route="/v1/completions", status="400") or 0
    for path in ("/completions", "/completions/", "/v1/completions/"):
        assert locked.http.post(path, json={}, headers=headers).status_code == 400, path
    assert locked.number("adacd_requests_total", route="/v1/completions", status="400") == before + 3
    assert locked.http.get("/v2/models", headers=headers).status_code == 404


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_body_may_be_compressed_and_is_counted_unpacked(locked: Site, pack: Any) -> None:
    def post(content: bytes, coding: str = "gzip") -> Any:
        headers = {"x-api-key": KEY, "Content-Encoding": coding}
        return locked.http.post("/v1/chat/completions", content=content, headers=headers)

    body = json.dumps({**CHAT, "max_tokens": 1}).encode()
    assert post(pack(body)).status_code == 200
    check_error(post(pack(b" " * 10_000_000)), 413, "body_too_large", "too large a body")
    for broken in (pack(body)[:-9], body):
        check_error(post(broken), 400, "content_encoding", "no such compression")
    check_error(post(body, "br"), 415, "content_encoding", "another compression")


@pytest.mark.parametrize("key", [None, KEY])
def test_a_preflight_that_is_refused_names_the_flag(key: str | None) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Origin": "http://app.example"}
    with site(letters(), key=key, local=None if key else "127.0.0.1") as server:
        response = server.http.options("/v1/chat/completions", headers=asks)
    check_error(response, 403, "cors_origin", "no pages of others", kind="permission_error")


def test_errors_are_what_the_clients_of_a_format_read() -> None:
    with site(letters()) as server:
        ollama = server.http.post("/api/chat", json={"messages": {}})
        anthropic = server.http.post("/v1/messages", json={"messages": {}})
    message = "`messages` should be a valid array."
    assert (ollama.status_code, ollama.json()) == (400, {"error": message})
    error = {"message": message, "type": "invalid_request_error", "param": "messages", "code": None}
    assert (anthropic.status_code, anthropic.json()) == (400, {"type": "error", "error": error})
