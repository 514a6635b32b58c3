"""`adacd serve` as its users meet it: a process on a port, OpenAI's own client, curl, signals, bad flags."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests import processes
from tests.conftest import RunCommand
from tests.golden import check
from tests.profiles import save_demo_profile

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-local"
QUESTION: Any = [{"role": "user", "content": "How do I kill a Python process?"}]
ANSWER = (
    "To kill a Python process, end the parent process, because a zombie is already dead and only waits to be "
    "collected."
)
STOPPING = "Stopping once all requests are answered."
REFUSAL = "I'm sorry, but I can't help with that."


class Process:
    """A server in a process of its own.

    Attributes:
        said: the lines it wrote to stderr.
        url: where it listens.
    """

    def __init__(self, *arguments: str) -> None:
        reading, writing = os.pipe()
        own = {"stderr": writing, "env": {"ADACD_API_KEY": KEY}}
        self.running = processes.Process("serve", "--port", "0", *arguments, **own)
        os.close(writing)
        self.said: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            with open(reading, encoding="utf-8") as lines:
                for line in lines:
                    self.said.append(line.rstrip("\n"))
                    if line.startswith("Serving "):
                        ready.set()
            ready.set()

        self._reader = threading.Thread(target=listen)
        self._reader.start()
        assert ready.wait(60) and len(self.said) > 1, self.said
        self.url = self.said[1].split()[1].removesuffix("/v1,")

    def end(self) -> int:
        """Its exit code, once it has ended."""
        code = self.running.end().code
        self._reader.join()
        return code


@contextmanager
def process(*arguments: str) -> Iterator[Process]:
    server = Process(*arguments)
    try:
        yield server
    finally:
        if not server.running.ended:
            server.running.send(signal.SIGKILL)
            server.end()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with process("--max-answer-tokens", "100") as server:
        yield server.url
        server.running.send(signal.SIGINT)
        assert server.end() == 130
        assert server.said[-1] == STOPPING


@pytest.fixture
def client(served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_client_gets_an_answer_and_adacds_own_fields(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=QUESTION)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ANSWER, "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 31)
    assert answer.model_extra == {"adacd": {"method": "adacd", "added": 9, "subtracted": 1}}
    plain = client.chat.completions.create(
        model="demo", messages=QUESTION, extra_body={"adacd": {"method": "default", "trace": True}}
    )
    assert plain.choices[0].message.content == REFUSAL
    assert [step["token"] for step in plain.model_extra["adacd"]["trace"]][:2] == ["I", "'m"]
    again = [*QUESTION, plain.choices[0].message.model_dump(), *QUESTION]  # as clients send it back
    assert client.chat.completions.create(model="demo", messages=again).choices[0].finish_reason == "stop"


def test_the_client_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage and chunks[-1].usage.total_tokens) == ([], 42)


def test_the_client_reads_completions_and_log_probabilities(client: openai.OpenAI) -> None:
    text = client.completions.create(model="demo", prompt="To kill a", max_tokens=2, logprobs=2)
    probabilities = text.choices[0].logprobs
    assert probabilities is not None and probabilities.tokens is not None
    assert "".join(probabilities.tokens) == text.choices[0].text
    chat = client.chat.completions.create(
        model="demo", messages=QUESTION, max_tokens=1, logprobs=True, top_logprobs=2
    )
    told = chat.choices[0].logprobs
    assert told is not None and told.content is not None
    assert [each.token for each in told.content[0].top_logprobs] == ["I", "To"]
    assert [model.id for model in client.models.list()] == ["demo"]


class Fact(BaseModel):
    kind: Literal["fact", "guess"]


@pytest.mark.parametrize("method", ["default", "adacd"])
def test_the_client_parses_what_it_asked_for(client: openai.OpenAI, method: str) -> None:
    pytest.importorskip("llguidance")
    extra = {"seed": 2, "adacd": {"method": method}}
    own: Any = {"model": "demo", "temperature": 1, "extra_body": extra}
    asked: Any = {**own, "messages": QUESTION, "response_format": Fact}
    parsed = client.chat.completions.parse(**asked)
    assert isinstance(parsed.choices[0].message.parsed, Fact)
    assert parsed.model_extra is not None and parsed.model_extra["adacd"]["method"] == method
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    assert (final.message.parsed, final.finish_reason) == (parsed.choices[0].message.parsed, "stop")
    response = client.responses.parse(**own, input="How?", text_format=Fact)
    assert isinstance(response.output_parsed, Fact)


def test_many_asynchronous_clients_share_the_decoder(served: str) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served}/v1", api_key=KEY) as client:

            async def one(method: str, stream: bool) -> str:
                own = {"adacd": {"method": method}}
                made: Any = await client.chat.completions.create(
                    model="demo", messages=QUESTION, stream=stream, extra_body=own
                )
                if not stream:
                    return str(made.choices[0].message.content)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in made])

            kinds = [("adacd", True), ("default", False), ("adacd", False), ("default", True)]
            return list(await asyncio.gather(*(one(*kind) for kind in kinds * 2)))

    assert asyncio.run(ask()) == [ANSWER, REFUSAL] * 4


def test_the_clients_errors_are_those_of_openai(served: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    for fields in ({"temperature": 9}, {"max_tokens": 101}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="demo", messages=QUESTION, **fields)
        assert (refused.value.code, refused.value.param) == (None, *fields)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{served}/v1", api_key="sk-other").models.list()


def test_curl(served: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    headers = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    body = json.dumps({"model": "demo", "messages": QUESTION, "stream": True, "max_tokens": 2})
    command = [curl, "-sN", f"{served}/v1/chat/completions", *headers, "-d", body]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    large = ["--data-binary", "@-", "-w", "%{http_code}"]
    command = [curl, "-s", f"{served}/v1/chat/completions", *headers, *large]
    refused = subprocess.run(command, capture_output=True, input=b"x" * 100_000_000)
    assert refused.stdout.endswith(b"413")
    assert json.loads(refused.stdout[:-3])["error"]["code"] == "body_too_large"


def test_a_client_that_sends_too_much_on_a_connection_in_use_sees_why(served: str) -> None:
    with httpx.Client(base_url=served, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for _ in range(4):
            assert client.get("/v1/models").status_code == 200
            assert client.post("/v1/completions", content=b"x" * 50_000_000).status_code == 413


def test_the_examples_of_the_page_are_answered(served: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    commands = re.findall(r"^curl http://127\.0\.0\.1:8000(?:.*\\\n)*.*", page, re.MULTILINE)
    assert len(commands) == 9
    if find_spec("llguidance") is None:
        commands = [each for each in commands if "response_format" not in each]
    for command in commands:
        asked = command.replace("http://127.0.0.1:8000", served).replace(
            "curl", f"curl -sf -H 'x-api-key: {KEY}'", 1
        )
        assert subprocess.run(["bash", "-c", asked], capture_output=True, check=True).stdout, command


def test_a_client_that_leaves_leaves_no_row_behind(served: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=served, headers=headers) as http:
        body = {"model": "demo", "messages": QUESTION, "stream": True, "temperature": 2, "max_tokens": 100}
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            next(response.iter_lines())
        for _ in range(200):
            numbers = http.get("/metrics").text.splitlines()
            if {"adacd_running_rows 0.0", "adacd_queue_length 0.0"} <= set(numbers):
                return
            time.sleep(0.02)
    raise AssertionError("a row is left")


def test_sigterm_finishes_what_was_asked_and_nothing_of_it_is_logged() -> None:
    with process("--model-id", "mine") as server:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=server.url, headers=headers) as http:
            body = {"model": "mine", "messages": QUESTION, "stream": True}
            with http.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = (line for line in response.iter_lines() if line)
                first = next(lines)
                server.running.send(signal.SIGTERM)
                *rest, done = lines
            said = [json.loads(line[6:]) for line in (first, *rest)]
        assert done == "data: [DONE]"
        assert "".join(each["choices"][0]["delta"].get("content", "") for each in said) == ANSWER
        assert server.end() == 0
    asked = server.said.pop()
    assert re.fullmatch(r"127\.0\.0\.1 POST /v1/chat/completions 200 \d+\.\d\d s", asked)
    assert server.said == [
        "mine · adacd · 64 at once",
        f"Serving {server.url}/v1, and a page at {server.url}/",
        STOPPING,
    ]


@pytest.mark.parametrize(
    ("arguments", "method"),
    [([], "fitted · profile mine"), (["--method", "adacd"], "adacd"), (["--gate"], "adacd-gated")],
)
def test_the_profile_that_decodes_is_named(tmp_path: Path, arguments: list[str], method: str) -> None:
    with process("--profile", save_demo_profile(tmp_path / "mine.yaml"), *arguments) as server:
        assert server.said[0] == f"demo · {method} · 64 at once"


def test_a_port_in_use(adacd: RunCommand) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = adacd("serve", "--port", str(port))
    assert (outcome.code, outcome.out) == (1, "")
    check("server", "port in use", outcome.err.replace(str(port), "PORT"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--host", "192.0.2.1"], 1),
        (["--host", "no.such.host.invalid"], 1),
        (["--api-key", ""], 2),
        (["--model-id", " "], 2),
        (["--cors-origin", "localhost:3000"], 2),
        (["--max-body-size", "big"], 2),
    ],
)
def test_flags_that_cannot_be_used(adacd: RunCommand, arguments: list[str], code: int) -> None:
    outcome = adacd("serve", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    if "no.such.host.invalid" not in arguments:  # whose reason is the system's
        check("server", f"adacd serve {' '.join(arguments)}", outcome.err)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--method", "ssd"], 2, "--draft"),
        (["--port", "0", "--model", "./nowhere"], 3, "./nowhere"),
    ],
)
def test_settings_that_cannot_be_used(adacd: RunCommand, arguments: list[str], code: int, named: str) -> None:
    outcome = adacd("serve", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("Error: ") and named in outcome.err
