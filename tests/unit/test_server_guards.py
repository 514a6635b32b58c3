"""Who may ask, from where, how much, and what is written about it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from adacd_cli.server import guards
from adacd_cli.server.asked import Limits
from tests.serving import ALPHABET, CHAT, Site, letters, scope, site

KEY = "sk-unique"
WRONG = {
    "message": "The key is wrong.",
    "type": "authentication_error",
    "param": None,
    "code": "invalid_api_key",
}
MISSING = {**WRONG, "message": "A key is needed: Authorization: Bearer KEY."}


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.fixture(scope="module")
def locked() -> Iterator[Site]:
    with site(letters(), key=KEY, origins=("http://app.example",), limits=Limits(body_bytes=1000)) as server:
        yield server


@pytest.mark.parametrize(
    ("header", "error"),
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
        ("Bearer \xff\xfe", WRONG),
    ],
)
def test_a_key_is_asked_on_every_route_but_health(locked: Site, header: str | None, error: Any) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    asked = [
        locked.http.get("/v1/models", headers=headers),
        locked.http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}, headers=headers),
        locked.http.get("/metrics", headers=headers),
        locked.http.get("/openapi.json", headers=headers),
    ]
    if error is None:
        assert [each.status_code for each in asked] == [200] * 4
    else:
        assert [(each.status_code, each.json()["error"]) for each in asked] == [(401, error)] * 4
        assert asked[0].headers["www-authenticate"] == "Bearer"
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
    assert response.status_code == 413
    assert response.json()["error"] == {
        "message": "The body is larger than 1000 bytes.",
        "type": "invalid_request_error",
        "param": None,
        "code": "body_too_large",
    }


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
        found = server.http.get("/openapi.json", headers={"Host": host})
        assert found.status_code == status


@pytest.mark.parametrize("logged", [False, True])
def test_what_was_said_is_written_only_where_that_is_wanted(
    capsys: pytest.CaptureFixture[str], logged: bool
) -> None:
    with site(letters(), quiet=False, log_prompts=logged) as server:
        secret = "my \x1b secret"
        body = {"messages": [{"role": "user", "content": secret}], "max_tokens": 26}
        server.chat(**body)
        server.http.post("/v1/chat/completions?key=secret", json={**CHAT, "secret": 1})
        server.http.get("/%1Bsecret%0A?secret=1")
    written = capsys.readouterr().err
    lines = [line for line in written.splitlines() if not line.startswith("{")]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "testclient POST /v1/chat/completions 200",
        "testclient POST /v1/chat/completions 400",
        r"testclient GET /\x1bsecret\n 404",
    ]
    assert ("my \\u001b secret" in written and ALPHABET in written) == logged
    assert "\x1b" not in written


def test_errors_of_no_route_have_the_same_shape() -> None:
    with site(letters()) as server:
        nowhere, method = server.http.get("/v1/nothing"), server.http.get("/v1/completions")
    assert (nowhere.status_code, nowhere.json()["error"]) == (
        404,
        {
            "message": "There is no route /v1/nothing.",
            "type": "not_found_error",
            "param": None,
            "code": "unknown_route",
        },
    )
    assert (method.status_code, method.headers["allow"], method.json()["error"]["message"]) == (
        405,
        "POST",
        "The route /v1/completions does not take GET.",
    )


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "BODY_SECONDS", 0.2)
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
    monkeypatch.setattr(guards, "_LOOK_SECONDS", 0.05)
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


@pytest.mark.parametrize("path", ["/health", "/"])
def test_what_looks_whether_it_is_there_may_ask_for_the_head(path: str) -> None:
    with site(letters()) as server:
        response = server.http.head(path)
    assert (response.status_code, response.content) == (200, b"")
