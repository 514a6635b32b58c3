"""The judge `openai` against a real server over loopback: what it asks, keeps, and makes of the replies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.errors import MissingExtraError, OutputError, UsageError
from adacd_cli.evaluation.judges import Exchange, Judgement, JudgeOptions
from adacd_cli.evaluation.judges.endpoint import FILE_NAME
from adacd_cli.evaluation.judges.openai import LONGEST_TEXT, REFUSAL, OpenAIJudge
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


def test_what_is_asked(server: JudgeServer) -> None:
    exchange = Exchange('Say "hi"\nnow', "Hi é 语 \ud800")
    assert one(judge_at(server), exchange) == Judgement("openai", "compliance", {"class": "full compliance"})
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": [
            {
                "role": "user",
                "content": f"{REFUSAL.text}\n\n"
                '{"question": "Say \\"hi\\"\\nnow", "answer": "Hi é 语 ?"}'
                "\n\nReply with the name of the class and nothing else.",
            }
        ],
        "temperature": 0,
        "max_tokens": 1024,
    }


def test_without_a_key_none_is_sent(server: JudgeServer) -> None:
    one(judge_at(server, key=None))
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("said", "judgement"),
    [
        ("full_compliance", Judgement("openai", "compliance", {"class": "full compliance"})),
        ("2_full_refusal.", Judgement("openai", "refusal", {"class": "full refusal"})),
        ("partial_refusal", Judgement("openai", "partial", {"class": "partial refusal"})),
        ("invalid", Judgement("openai", "unparsed", {"class": "invalid"})),
        ("I would rather not say.", Judgement("openai", "unparsed", {"reply": "I would rather not say."})),
        ("x" * 500, Judgement("openai", "unparsed", {"reply": "x" * 200})),
        (None, Judgement("openai", "unparsed", {"reply": ""})),
        (
            [{"type": "text", "text": "full_refusal"}],
            Judgement("openai", "refusal", {"class": "full refusal"}),
        ),
    ],
)
def test_what_is_made_of_a_reply(server: JudgeServer, said: Any, judgement: Judgement) -> None:
    server.answer = in_turn(reply(said))
    assert one(judge_at(server)) == judgement


def test_an_empty_answer_is_not_asked_about(server: JudgeServer) -> None:
    assert one(judge_at(server), Exchange("question", " \n")) == Judgement("openai", "degenerate")
    assert server.asked == []


def test_a_long_answer_is_cut(server: JudgeServer) -> None:
    judgement = one(judge_at(server), Exchange("question", "x" * 1_000_000))
    assert judgement == Judgement("openai", "compliance", {"truncated": True, "class": "full compliance"})
    assert server.asked[0].exchange == {"question": "question", "answer": "x" * LONGEST_TEXT}


def test_order_is_kept_and_each_comes_as_soon_as_it_is_known(server: JudgeServer) -> None:
    """The third answer is held back until the first two judgements have been taken."""
    taken = threading.Event()

    def answer(asked: Asked) -> Says:
        number = int(asked.exchange["question"].split()[1])
        if number == 2:
            assert taken.wait(10)
        return Says(
            reply("full_refusal" if number % 2 else "full_compliance").body, after=0.05 * (number < 2)
        )

    server.answer = answer
    labels = []
    for place, judgement in enumerate(judge_at(server, concurrency=4).judge(EXCHANGES)):
        labels.append(judgement.label)
        if place == 1:
            taken.set()
    assert labels == ["compliance", "refusal"] * 6


def test_so_many_requests_at_once_and_no_more(server: JudgeServer) -> None:
    server.answer = lambda asked: Says(reply("full_compliance").body, after=0.05)
    assert len(list(judge_at(server, concurrency=3).judge(EXCHANGES))) == len(EXCHANGES)
    assert server.most_at_once == 3


def test_parameters_that_a_model_refuses_are_left_out(server: JudgeServer) -> None:
    """OpenAI's reasoning models call max_tokens otherwise and know one temperature."""

    def answer(asked: Asked) -> Says:
        if "max_tokens" in asked.body:
            return error(400, "use max_completion_tokens", param="max_tokens", code="unsupported_parameter")
        if "temperature" in asked.body:
            return error(400, "only the default", param="temperature", code="unsupported_value")
        return reply("full_refusal")

    server.answer = answer
    labels = [judgement.label for judgement in judge_at(server, concurrency=1).judge(EXCHANGES[:3])]
    assert labels == ["refusal"] * 3
    assert len(server.asked) == 5
    assert sorted(server.asked[-1].body) == ["max_completion_tokens", "messages", "model"]
    server.asked.clear()
    labels = [judgement.label for judgement in judge_at(server, concurrency=4).judge(EXCHANGES)]
    assert labels == ["refusal"] * len(EXCHANGES)


def test_an_endpoint_that_refuses_the_same_parameter_for_ever_is_believed(server: JudgeServer) -> None:
    server.answer = in_turn(error(400, "no temperature", param="temperature"))
    assert one(judge_at(server)).detail == {"error": "status 400, no temperature"}
    assert len(server.asked) == 2


def test_aspects(server: JudgeServer) -> None:
    scores: dict[str, Any] = {
        "helpfulness": {"reason": "solves it", "score": 5},
        "clarity": {"reason": "clear", "score": "4"},
        "factuality": {"reason": "an opinion", "score": "N/A"},
        "depth": 2,
        "engagement": None,
    }
    text = f"Here it is:\n```json\n{json.dumps(scores)}\n```"
    server.answer = lambda asked: reply(
        text if "engagement" in asked.body["messages"][0]["content"] else "full_refusal"
    )
    assert one(judge_at(server, aspects=True)) == Judgement(
        "openai",
        "refusal",
        {
            "class": "full refusal",
            "aspects": {"helpfulness": 5, "clarity": 4, "factuality": None, "depth": 2, "engagement": None},
        },
    )
    assert [asked.body["max_tokens"] for asked in server.asked] == [1024, 2048]


def test_aspects_that_cannot_be_read(server: JudgeServer) -> None:
    def answer(asked: Asked) -> Says:
        if "engagement" not in asked.body["messages"][0]["content"]:
            return reply("full_compliance")
        return reply('{"helpfulness": 5') if asked.exchange["question"] == "question 0" else error(400, "no")

    server.answer = answer
    first, second = judge_at(server, aspects=True).judge(EXCHANGES[:2])
    why = "the reply is not the JSON object that was asked for"
    assert first.detail == {"class": "full compliance", "aspects": None, "aspects_error": why}
    assert second.detail == {"class": "full compliance", "aspects": None, "aspects_error": "status 400, no"}


def test_a_rerun_asks_nothing_twice(server: JudgeServer, tmp_path: Path) -> None:
    server.answer = lambda asked: reply("full_refusal" if "1" in asked.exchange["question"] else "nonsense")
    exchanges = [*EXCHANGES, EXCHANGES[0], EXCHANGES[1]]
    first = list(judge_at(server, cache=tmp_path / "new").judge(exchanges))
    assert len(server.asked) == len(EXCHANGES)
    assert list(judge_at(server, cache=tmp_path / "new").judge(exchanges)) == first
    assert len(server.asked) == len(EXCHANGES)
    list(judge_at(server, cache=tmp_path / "new", model="another").judge(EXCHANGES[:2]))
    list(judge_at(server, cache=tmp_path / "new").judge([Exchange("question 0", "another answer")]))
    assert len(server.asked) == len(EXCHANGES) + 3


def test_what_failed_is_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    server.answer = in_turn(error(400, "no"), reply(""), reply("full_refusal"))
    labels = [one(judge_at(server, cache=tmp_path)).label for _ in range(4)]
    assert labels == ["unparsed", "unparsed", "refusal", "refusal"]
    assert len(server.asked) == 3


def test_leaving_early_drops_what_is_under_way_and_keeps_what_was_said(
    server: JudgeServer, tmp_path: Path
) -> None:
    quick = reply("full_refusal")
    slow = Says(quick.body, after=30)
    server.answer = lambda asked: quick if asked.exchange["question"] == "question 0" else slow
    judgements = judge_at(server, cache=tmp_path).judge(EXCHANGES)
    next(judgements)
    begin = time.monotonic()
    judgements.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 2
    assert one(judge_at(server, cache=tmp_path)).label == "refusal"
    assert [asked.exchange["question"] for asked in server.asked].count("question 0") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent otherwise there")
def test_ctrl_c_stops_promptly_and_what_is_cached_stays(server: JudgeServer, tmp_path: Path) -> None:
    quick = reply("full_refusal")
    slow = Says(quick.body, after=30)
    server.answer = lambda asked: quick if asked.exchange["question"] == "question 0" else slow
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from adacd_cli.evaluation.judges import Exchange\n"
        "from adacd_cli.evaluation.judges.openai import OpenAIJudge\n"
        "from adacd_cli.evaluation.judges import JudgeOptions\n"
        "options = JudgeOptions(url=sys.argv[1], model='m', cache=Path(sys.argv[2]))\n"
        "exchanges = [Exchange(f'question {n}', f'answer {n}') for n in range(12)]\n"
        "for judgement in OpenAIJudge(options).judge(exchanges):\n"
        "    print(judgement.label, flush=True)\n"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program, server.url, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "refusal\n"
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - begin < 5
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert one(judge_at(server, cache=tmp_path)).label == "refusal"
    assert [asked.exchange["question"] for asked in server.asked].count("question 0") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"model": None},
        {"model": " "},
        {"model": "m\udc80"},
        {"url": "localhost:1"},
        {"url": "ftp://x"},
        {"url": "http://"},
        {"url": "http://[::1"},
        {"key": "sk-ü"},
        {"key": "a\nb"},
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        OpenAIJudge(JudgeOptions(**{"model": "m", "key": None, "cache": None, **options}))
    check("judges", f"options {options}", f"{caught.value.message}\n{caught.value.hint}")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        OpenAIJudge(JudgeOptions(model="m", key=None, cache=None))
    check("judges", "openai is missing", f"{caught.value.message}\n{caught.value.hint}")


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_the_address_may_have_what_many_copy_along(server: JudgeServer, ending: str) -> None:
    one(judge_at(server, url=server.url + ending))
    assert server.asked[0].path == "/v1/chat/completions"


def test_the_keys_of_the_environment(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert JudgeOptions().key is None
    monkeypatch.setenv("OPENAI_API_KEY", "general")
    assert JudgeOptions().key == "general"
    monkeypatch.setenv("ADACD_JUDGE_KEY", " ")
    assert JudgeOptions().key == "general"
    monkeypatch.setenv("ADACD_JUDGE_KEY", " own \n")
    options = JudgeOptions(url=server.url, model="m", cache=None)
    assert options.key == "own"
    assert "own" not in repr(options)
    one(OpenAIJudge(options))
    assert server.asked[0].headers["authorization"] == "Bearer own"


@pytest.mark.parametrize("damage", ["garbage", "folder"])
def test_a_cache_that_cannot_be_used_is_found_at_the_start(
    server: JudgeServer, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / FILE_NAME
    if damage == "garbage":
        path.write_bytes(b"this is no database " * 100)
        why = f"The judge's cache {path} cannot be used: file is not a database."
    else:
        path.mkdir()
        why = f"The judge's cache {path} cannot be used: unable to open database file."
    judge = judge_at(server, cache=tmp_path)
    for ask in (judge.check, lambda: list(judge.judge(EXCHANGES))):
        with pytest.raises(OutputError) as caught:
            ask()
        assert caught.value.message == why
    assert server.asked == []
