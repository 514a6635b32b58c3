"""Answers in JSON, by every format of a client: what is asked for, by which field, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from adacd_cli.config import Settings
from tests.serving import QUESTION, Site, chunks, letters, site

pytest.importorskip("llguidance")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"letters": {"type": "string", "pattern": "^[a-f]{3}$"}, "ok": {"type": "boolean"}},
    "required": ["letters", "ok"],
    "additionalProperties": False,
}
CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
TURN = {"messages": [QUESTION]}
WRONG = {"type": "objekt"}


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    settings = Settings(alpha=1.0, contrast_steps=3, max_new_tokens=200, temperature=1.0)
    with site(letters(), settings=settings) as server:
        yield server


def post(server: Site, path: str, **body: Any) -> Any:
    return server.http.post(path, json=body)


def check(text: str, schema: dict[str, Any] = SCHEMA) -> None:
    jsonschema_rs.validate(schema, json.loads(text))


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": CHAT_FORMAT},
        {"structured_outputs": {"json": SCHEMA}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"json_schema": SCHEMA},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_answer_fits_whichever_field_asks(server: Site, fields: dict[str, Any]) -> None:
    body = server.chat(n=3, **fields).json()
    for choice in body["choices"]:
        check(choice["message"]["content"])
        assert choice["finish_reason"] == "stop"
    assert (
        len({choice["message"]["content"] for choice in body["choices"]}) > 1
    )  # each has its own place in it
    for choice in post(server, "/v1/completions", prompt=["a", "b"], **fields).json()["choices"]:
        check(choice["text"])


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}]
)
def test_any_object(server: Site, fields: dict[str, Any]) -> None:
    answer = server.chat(temperature=0, adacd={"method": "default"}, max_tokens=20, **fields).json()[
        "choices"
    ][0]
    assert answer["message"]["content"].startswith("{") and answer["finish_reason"] in ("stop", "length")


def test_a_stream_says_the_same(server: Site) -> None:
    fields = {"response_format": CHAT_FORMAT, "seed": 3}
    said = chunks(server.chat(stream=True, **fields))[:-1]
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in said)
    check(text)
    assert text == server.chat(**fields).json()["choices"][0]["message"]["content"]
    assert said[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_contrast_window_is_part_of_it(server: Site) -> None:
    body = server.chat(response_format=CHAT_FORMAT, adacd={"trace": True, "candidates": 3}).json()
    first = body["adacd"]["trace"][0]
    assert first["token"] == "{" and first["decision"] in ("add", "subtract")
    assert {"a": False, "{": True}.items() <= {
        each["text"]: each["kept"] for each in first["candidates"]
    }.items()


def test_responses_messages_and_ollama_have_it_too(server: Site) -> None:
    format = {"type": "json_schema", "name": "x", "schema": SCHEMA}
    response = post(server, "/v1/responses", input="Hi?", text={"format": format}).json()
    check(response["output"][0]["content"][0]["text"])
    for field in ({"output_config": {"format": format}}, {"output_format": format}):
        message = post(server, "/v1/messages", **TURN, max_tokens=100, **field).json()
        check(message["content"][0]["text"])
        assert message["stop_reason"] == "end_turn"
    chat = post(server, "/api/chat", **TURN, stream=False, format=SCHEMA).json()
    check(chat["message"]["content"])
    generated = post(server, "/api/generate", prompt="Hi?", format="json", options={"num_predict": 9})
    said = [json.loads(line).get("response", "") for line in generated.text.splitlines()]
    assert "".join(said).startswith("{")


@pytest.mark.parametrize(
    ("path", "fields", "param", "reason"),
    [
        (
            "/v1/chat/completions",
            {**TURN, "response_format": {"type": "json_schema", "json_schema": {"schema": WRONG}}},
            "response_format",
            "`response_format` cannot be used. No answer can be held to the JSON schema: Invalid type: objekt.",
        ),
        (
            "/v1/chat/completions",
            {**TURN, "response_format": {"type": "json_schema"}},
            "response_format",
            "`response_format` of type json_schema needs a `json_schema`.",
        ),
        (
            "/v1/chat/completions",
            {**TURN, "guided_json": SCHEMA, "response_format": CHAT_FORMAT},
            "guided_json",
            "`guided_json` and `response_format` cannot be used together.",
        ),
        (
            "/v1/chat/completions",
            {**TURN, "structured_outputs": {"regex": "a"}},
            "structured_outputs.regex",
            "Answers can be held to JSON alone, by `response_format`, not by `regex`. (`structured_outputs.regex`)",
        ),
        (
            "/v1/responses",
            {"input": "Hi?", "text": {"format": {"type": "json_schema", "schema": {"pattern": "("}}}},
            "text.format",
            "`text.format` cannot be used. No answer can be held to the JSON schema: regex parse error: "
            "( ^ error: unclosed group.",
        ),
        (
            "/v1/responses",
            {"input": "Hi?", "text": {"format": {"type": "json_schema"}}},
            "text.format.schema",
            "`text.format.schema` is missing.",
        ),
        (
            "/v1/messages",
            {**TURN, "output_config": {"format": {"type": "json_schema", "schema": WRONG}}},
            "output_config.format",
            "`output_config.format` cannot be used. No answer can be held to the JSON schema: Invalid type: "
            "objekt.",
        ),
        (
            "/v1/chat/completions",
            {"messages": [QUESTION, {"role": "assistant", "content": "{"}], "guided_json": SCHEMA},
            "guided_json",
            "`guided_json` cannot hold an answer to JSON that has begun already.",
        ),
        (
            "/v1/chat/completions",
            {**TURN, "guided_json": "{"},
            "guided_json",
            "`guided_json` is no JSON: EOF while parsing an object at line 1 column 1.",
        ),
        ("/api/chat", {**TURN, "format": "xml"}, None, "`format` is json or a JSON schema."),
    ],
)
def test_what_is_refused(
    server: Site, path: str, fields: dict[str, Any], param: str | None, reason: str
) -> None:
    response = post(server, path, **fields)
    error = response.json()["error"]
    found = (None, error) if isinstance(error, str) else (error["param"], error["message"])
    assert (response.status_code, *found) == (400, param, reason)
