"""The judge `openai` against a server that is slow, wrong, limited or down, also at the start."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from adacd_cli.errors import EnvironmentFault
from adacd_cli.evaluation.judges import Judgement, JudgeOptions
from adacd_cli.evaluation.judges import endpoint as endpoint_module
from adacd_cli.evaluation.judges.openai import DOWN_AFTER, OpenAIJudge
from tests.golden import check
from tests.judge_server import (
    EXCHANGES,
    KEY,
    Asked,
    JudgeServer,
    Says,
    complying,
    error,
    in_turn,
    judge_at,
    one,
    quicken,
    reply,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with complying() as running:
        yield running


def test_429_with_retry_after_holds_every_request_back(server: JudgeServer) -> None:
    """The first is told to wait a second; none comes in within it, but those that were under way."""
    server.answer = in_turn(error(429, "slow down", {"Retry-After": "1"}), reply("full_compliance"))
    labels = [judgement.label for judgement in judge_at(server, concurrency=1).judge(EXCHANGES[:4])]
    assert labels == ["compliance"] * 4
    first, *later = [asked.at for asked in server.asked]
    assert len(later) == 4
    assert min(later) - first >= 0.99


def test_retry_after_may_be_a_date(server: JudgeServer) -> None:
    headers = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
    server.answer = in_turn(error(503, "loading", headers), reply("full_compliance"))
    assert one(judge_at(server)).label == "compliance"
    assert server.asked[1].at - server.asked[0].at >= 0.9  # a date has whole seconds


def test_429_for_ever_ends_the_run(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "PATIENCE", 0.0)
    server.answer = in_turn(error(429, "slow down"))
    with pytest.raises(EnvironmentFault, match="puts requests off for more than 0 seconds"):
        one(judge_at(server))


def test_429_does_not_use_up_the_attempts(server: JudgeServer) -> None:
    server.answer = in_turn(*[error(429, "slow down")] * 6, reply("full_compliance"))
    assert one(judge_at(server)).label == "compliance"
    assert len(server.asked) == 7


@pytest.mark.parametrize(
    "passing",
    [
        error(500, "oops"),
        error(503, "overloaded"),
        Says(b"<html>Bad Gateway</html>", 502),
        Says(b"<html>log in first</html>"),
        Says(b'{"choices": [{"message": {"content": "full_ref'),
        Says(b""),
        Says(b"\xff\xfe"),
        Says(b"[" * 100_000),
        Says({"error": {"message": "upstream is down"}}),
        Says(b"not gzip", headers={"Content-Encoding": "gzip"}),
        Says(b"short", headers={"Content-Length": "100", "Connection": "close"}),
        Says(reply("full_compliance").body, after=0.6),
    ],
)
def test_what_may_pass_is_tried_again(server: JudgeServer, passing: Says) -> None:
    server.answer = in_turn(passing, passing, reply("full_refusal"))
    assert one(judge_at(server, timeout=0.3)).label == "refusal"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("failing", "reason", "times", "again"),
    [
        (error(500, "oops."), "status 500, oops", 3, True),
        (Says(b"<html>hello</html>"), "its response is not a JSON object: <html>hello</html>", 3, True),
        (Says(b""), "its response is empty", 3, True),
        (Says(b"", 500), "status 500", 3, True),
        (Says(reply("x").body, after=0.4), "it did not answer within 0.2 s", 3, True),
        (Says({"choices": []}), "its response is no chat completion", 3, True),
        (Says({"choices": [{"message": "hi"}]}), "its response is no chat completion", 3, True),
        (error(400, "content filter"), "status 400, content filter", 1, False),
        (Says({"detail": [{"loc": "messages"}]}, 422), 'status 422, [{"loc": "messages"}]', 1, False),
        (Says({"object": "error", "message": "too long"}, 400), "status 400, too long", 1, False),
    ],
)
def test_a_request_that_fails_leaves_its_answer_unparsed(
    server: JudgeServer, failing: Says, reason: str, times: int, again: bool
) -> None:
    good = reply("full_refusal")
    server.answer = lambda asked: failing if asked.exchange["question"] == "question 1" else good
    judgements = list(judge_at(server, timeout=0.2, concurrency=1).judge(EXCHANGES[:3]))
    refusal = Judgement("openai", "refusal", {"class": "full refusal"})
    detail = {"error": reason, **({"failed": True} if again else {})}
    assert judgements == [refusal, Judgement("openai", "unparsed", detail), refusal]
    assert len(server.asked) == 2 + times


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("key", error(401, f"Incorrect API key provided: {KEY}.")),
        ("model", error(404, "The model `m` does not exist")),
        ("quota", error(429, "You exceeded your current quota", code="insufficient_quota")),
        ("limit", error(429, "daily limit", {"Retry-After": "86400"})),
    ],
)
def test_what_no_further_request_would_change_ends_the_run(
    server: JudgeServer, name: str, answer: Says
) -> None:
    """Also where it comes in the middle: what was judged before it is given first."""
    good = reply("full_refusal")
    server.answer = lambda asked: answer if asked.exchange["question"] == "question 1" else good
    judgements = judge_at(server, concurrency=1).judge(EXCHANGES)
    assert next(judgements).label == "refusal"
    with pytest.raises(EnvironmentFault) as caught:
        list(judgements)
    assert KEY not in caught.value.message
    shown = f"{caught.value.message}\n{caught.value.hint}".replace(server.url, "URL")
    check("judges", f"endpoint {name}", shown)


def test_an_endpoint_that_goes_down_ends_the_run(server: JudgeServer, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Says:
        good = int(asked.exchange["question"].split()[1]) < 2
        return reply("full_compliance") if good else error(500, "oops")

    server.answer = answer
    labels = []
    with pytest.raises(EnvironmentFault) as caught:
        for judgement in judge_at(server, concurrency=1, cache=tmp_path).judge(EXCHANGES):
            labels.append(judgement.label)
    assert labels[:2] == ["compliance"] * 2
    assert labels[2:] == ["unparsed"] * min(len(labels[2:]), DOWN_AFTER - 1)
    assert caught.value.message == f"The judge at {server.url} gives no judgement: status 500, oops."
    assert caught.value.hint == f"Start it, or check its address; its replies so far are kept in {tmp_path}."
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "listing",
    [
        Says({"object": "list", "data": [{"id": "m"}, {"id": "n"}, {}, 3]}),
        Says({"data": None}),
        error(404, "Not Found"),
        Says(b"", 405),
    ],
)
def test_check_asks_for_one_judgement_once_and_for_all(
    server: JudgeServer, listing: Says, tmp_path: Path
) -> None:
    server.listing = listing
    for _ in range(2):
        judge = judge_at(server, cache=tmp_path)
        judge.check()
        assert judge.warnings == ()
    assert [asked.exchange["question"] for asked in server.asked] == ["What is two plus two?"]


@pytest.mark.parametrize(
    "listing", [Says({"data": [{"id": "n"}]}), Says(b"what?"), Says(b"", 500), error(429, "slow down")]
)
def test_check_asks_again_where_the_list_is_a_bad_sign(
    server: JudgeServer, listing: Says, tmp_path: Path
) -> None:
    server.listing = listing
    for _ in range(2):
        judge = judge_at(server, cache=tmp_path)
        judge.check()
        assert judge.warnings == ()
    assert [asked.exchange["question"] for asked in server.asked] == ["What is two plus two?"] * 2


def test_check_warns_of_a_model_that_names_no_class(server: JudgeServer) -> None:
    server.answer = in_turn(reply("Four,\nof course!"))
    judge = judge_at(server)
    judge.check()
    assert judge.warnings == ("The judge m names no class when it is asked for one: 'Four, of course!'.",)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", ["list", "completion"])
def test_check_finds_a_key_that_is_not_accepted(server: JudgeServer, status: int, where: str) -> None:
    if where == "list":
        server.listing = error(status, f"no {KEY}")
    else:
        server.answer = in_turn(error(status, f"no {KEY}"))
    with pytest.raises(EnvironmentFault) as caught:
        judge_at(server).check()
    assert caught.value.message.endswith(f": status {status}, no ***.")


def test_check_finds_a_judge_that_is_down(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        url = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}/v1"
        judge = OpenAIJudge(JudgeOptions(url=url, model="m", key=KEY, cache=tmp_path))
        for ask in (judge.check, lambda: list(judge.judge(EXCHANGES))):
            with pytest.raises(EnvironmentFault) as caught:
                ask()
            shown = url.replace("user:secret@", "")
            assert (
                caught.value.message
                == f"The judge at {shown} cannot be reached: All connection attempts failed."
            )
            assert caught.value.exit_code == 3


def test_check_finds_a_judge_that_hangs(server: JudgeServer) -> None:
    server.answer = in_turn(Says(reply("x").body, after=30))
    begin = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"gives no judgement: it did not answer within 0\.2 s\."):
        judge_at(server, timeout=0.2).check()
    assert time.monotonic() - begin < 3


def test_what_is_known_does_not_hide_that_the_endpoint_is_down(server: JudgeServer, tmp_path: Path) -> None:
    """Every second answer was judged in an earlier run."""
    list(judge_at(server, cache=tmp_path).judge(EXCHANGES[::2]))
    server.answer = in_turn(error(500, "oops"))
    with pytest.raises(EnvironmentFault, match="gives no judgement: status 500, oops"):
        list(judge_at(server, cache=tmp_path, concurrency=1).judge(EXCHANGES))
