"""The model thread seen from outside: a full queue, clients that leave, failures, a crash, time, stopping."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adacd_cli.errors import LogitsError, OutOfMemoryError, ServerError
from tests.golden import check
from tests.serving import ALPHABET, CHAT, Loaded, Site, Slow, chunks, scope, site, until


def ended(site: Site) -> None:
    """No request is left behind."""
    until(lambda: site.number("adacd_running_rows") == site.number("adacd_queue_length") == 0)


def test_a_full_queue_answers_429_and_slots_are_given_again() -> None:
    slow = Slow()
    with site(Loaded(slow), max_concurrency=2, queue_size=1) as server, ThreadPoolExecutor(3) as clients:
        asked = [clients.submit(server.chat, max_tokens=2) for _ in range(3)]
        until(lambda: len(slow.running) == 3)
        refused = server.chat(max_tokens=2)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        error = refused.json()["error"]
        check("server", "full queue", error.pop("message"))
        assert error == {"type": "rate_limit_error", "param": None, "code": "queue_full"}
        slow.steps.release(2)
        assert [each.result().json()["choices"][0]["message"]["content"] for each in asked] == ["ab"] * 3
        slow.steps.release(2)
        assert server.chat(max_tokens=2).status_code == 200
        ended(server)


async def leave(app: Any, body: dict[str, Any], started: Any) -> list[Any]:
    """A request whose client leaves once `started` says so; what it was sent until then."""
    sent: list[Any] = []
    asked = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if asked:
            return asked.pop()
        while not started(sent):
            await asyncio.sleep(0.002)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope("/v1/chat/completions"), receive, send), 30)
    return sent


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_row_before_the_next_step(stream: bool) -> None:
    slow = Slow()
    with site(Loaded(slow)) as server:
        slow.steps.release(3)
        body = {**CHAT, "stream": stream, "max_tokens": 1000}
        asyncio.run(leave(server.app, body, lambda sent: slow.taken == 3))
        until(lambda: server.number("adacd_requests_left_total") == 1)
        ended(server)
        assert slow.left == [(0, 3)]
        assert server.worker.state == "ready"


def test_a_client_that_leaves_while_it_waits_is_not_answered() -> None:
    slow = Slow()
    with site(Loaded(slow), max_concurrency=1) as server:
        body = {**CHAT, "max_tokens": 1000}
        asyncio.run(leave(server.app, body, lambda sent: len(slow.running) == 1))
        ended(server)
        assert slow.left == [(0, 0)]
        assert server.number("adacd_tokens_total", kind="prompt") == 0  # its prompt was not read


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (LogitsError("The logits are not finite."), 500, "logits_not_finite"),
        (OutOfMemoryError("There is no memory."), 503, "out_of_memory"),
        (ServerError("The server at x does not answer any more."), 502, "model_server_failed"),
    ],
)
def test_a_failure_ends_its_own_request_alone(error: Any, status: int, code: str) -> None:
    slow = Slow()
    slow.fails[0] = error
    with site(Loaded(slow)) as server, ThreadPoolExecutor(2) as clients:
        failed = clients.submit(server.chat, max_tokens=1)
        until(lambda: len(slow.running) == 1)
        other = clients.submit(server.chat, max_tokens=1)
        until(lambda: len(slow.running) == 2)
        slow.steps.release(1)
        assert failed.result().status_code == status
        assert failed.result().json()["error"] == {
            "message": error.message,
            "type": "server_error",
            "param": None,
            "code": code,
        }
        assert other.result().json()["choices"][0]["message"]["content"] == "a"
        ended(server)


def test_a_failure_in_a_stream_is_its_last_line() -> None:
    slow = Slow()
    slow.fails[0] = LogitsError("The logits are not finite.")
    with site(Loaded(slow)) as server:
        slow.steps.release(1)
        said = chunks(server.chat(stream=True))
        assert [chunk.get("error", {}).get("code") for chunk in said] == [None, "logits_not_finite"]


def test_a_crash_turns_health_red_and_refuses_everyone() -> None:
    slow = Slow()
    with site(Loaded(slow)) as server, ThreadPoolExecutor(1) as clients:
        asked = clients.submit(server.chat)
        until(lambda: len(slow.running) == 1)
        slow.breaks = RuntimeError("secret words")
        slow.steps.release(1)
        failed = asked.result().json()["error"]
        check("server", "crash", failed["message"])
        assert (asked.result().status_code, failed["type"]) == (503, "server_error")
        assert (failed["param"], failed["code"]) == (None, "failed")
        health = server.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        for response in (server.chat(), server.http.get("/v1/models")):
            assert (response.status_code, response.json()["error"]) == (503, failed)
        assert (server.number("adacd_ready"), server.number("adacd_running_rows")) == (0, 0)
        assert [str(error) for error in server.faults] == ["secret words"]


def test_time_that_runs_out_ends_an_answer_with_what_was_said() -> None:
    slow = Slow()
    with site(Loaded(slow), seconds=0.3) as server, ThreadPoolExecutor(1) as clients:
        slow.steps.release(2)
        asked = clients.submit(server.chat, max_tokens=1000)
        choice = asked.result().json()["choices"][0]
        ((_, taken),) = slow.left
        assert (choice["message"]["content"], choice["finish_reason"]) == (ALPHABET[:taken], "length")


def test_stopping_refuses_new_requests_and_finishes_the_others() -> None:
    slow = Slow()
    with site(Loaded(slow)) as server, ThreadPoolExecutor(1) as clients:
        asked = clients.submit(server.chat, max_tokens=2)
        until(lambda: len(slow.running) == 1)
        server.worker.stop()
        assert server.http.get("/health").json()["status"] == "stopping"
        assert server.chat().json()["error"]["code"] == "stopping"
        slow.steps.release(2)
        assert asked.result().json()["choices"][0]["message"]["content"] == "ab"


def test_while_the_model_is_loaded_health_is_503_and_so_is_everything_else() -> None:
    with site(Loaded(Slow()), ready=False) as server:
        health = server.http.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "loading", "model": "letters"})
        for response in (server.chat(), server.http.get("/v1/models")):
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert response.json()["error"]["code"] == "loading"


def test_decisions_and_tokens_are_counted() -> None:
    slow = Slow()
    with site(Loaded(slow)) as server:
        slow.steps.release(3)
        server.chat(max_tokens=3)
        server.http.get("/nowhere/1")
        server.http.get("/nowhere/2")
        ended(server)
        counted = {
            "prompt": server.number("adacd_tokens_total", kind="prompt"),
            "generated": server.number("adacd_tokens_total", kind="generated"),
            "plain": server.number("adacd_decisions_total", decision="plain"),
            "first": server.number("adacd_first_token_seconds_count"),
            "asked": server.number("adacd_requests_total", route="/v1/chat/completions", status="200"),
            "other": server.number("adacd_requests_total", route="other", status="404"),
        }
        assert counted == {"prompt": 8, "generated": 3, "plain": 3, "first": 1, "asked": 1, "other": 2}
