"""The fields of a request: every refusal with its field, and what each field does to the settings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.server.errors import api_error
from adacd_cli.server.params import Params, conversation_of, read_params
from adacd_cli.server.schema import ChatRequest, CompletionRequest
from tests.golden import check

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi?"}]}
TEXT = {"model": "m", "prompt": "Once"}


def understood(body: bytes, model: Any = ChatRequest, most: int | None = None) -> Params:
    """The whole way from the bytes to the parameters."""
    request = model.model_validate_json(body)
    params = read_params(request, Settings(max_new_tokens=100), most)
    if isinstance(request, ChatRequest):
        conversation_of(request, None)
    return params


def refusal(
    name: str | None, body: bytes, model: Any = ChatRequest, most: int | None = None
) -> tuple[str | None, str | None]:
    """Param and code of the refusal; its message is checked by the golden file, where it is the server's own."""
    with pytest.raises(Exception) as raised:
        understood(body, model, most)
    error = api_error(raised.value)
    assert error.status == 400
    if name is not None:
        check("server", name, error.message)
    return error.param, error.code


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi?", **fields}]}


def shown(body: Any) -> str:
    """A name for the golden file."""
    return (repr(body)[2:-1] if isinstance(body, bytes) else json.dumps(body))[:70]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{nope",
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b"[]",
        b"null",
        b"NaN",
        b'{"model": "\\ud800"}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object(body: bytes) -> None:
    assert refusal(f"body {shown(body)}", body) == (None, "invalid_json")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [QUESTION := CHAT["messages"][0]] * 10_001}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 10**4000}, "seed"),
        ({"seed": True}, "seed"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x" * 501]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        (message(role="tool"), "messages[0].role"),
        (message(role="bot"), "messages[0].role"),
        (message(name="Ann"), "messages[0].name"),
        (message(content=None), "messages[0].content"),
        (message(content=3), "messages[0].content"),
        (message(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages[0].content[0].type"),
        (message(content=["x"]), "messages[0].content[0]"),
        ({"messages": [*CHAT["messages"], {"role": "assistant", "content": "Yes"}]}, "messages"),
        (
            {"messages": [*CHAT["messages"], {"role": "developer", "content": "x"}, *CHAT["messages"]]},
            "messages[1].role",
        ),
        ({"adacd": []}, "adacd"),
        ({f"x{n}": 1 for n in range(10_001)}, None),
        (message(content=[{"type": "text", "text": "a"}] * 1001), "messages[0].content"),
        ({"adacd": {"expert": "/etc"}}, "adacd.expert"),
        ({"adacd": {"method": "ssd"}}, "adacd.method"),
        ({"adacd": {"method": "surgical"}}, "adacd.method"),
        ({"adacd": {"trace": 1}}, "adacd.trace"),
        ({"adacd": {"candidates": 3}}, "adacd.candidates"),
        ({"adacd": {"trace": True, "candidates": 21}}, "adacd.candidates"),
        ({"adacd": {"trace": True, "candidates": True}}, "adacd.candidates"),
    ],
)
def test_a_refusal_of_a_chat_names_the_field(fields: dict[str, Any], param: str | None) -> None:
    assert refusal(f"chat {shown(fields)}", json.dumps(CHAT | fields).encode()) == (param, None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"zzz": None}, "zzz"),
        ({"z" * 999: 1}, "z" * 200),
        ({"stream": True, "stream_options": {"include_usge": True}}, "stream_options.include_usge"),
        (message(contents=1), "messages[0].contents"),
        (message(content=[{"type": "text", "text": "x", "txt": 1}]), "messages[0].content[0].txt"),
        ({"adacd": {"alfa": 1}}, "adacd.alfa"),
        ({"adacd": {"lambda": 1}}, "adacd.lambda"),
        ({"adacd": {"model": "x"}}, "adacd.model"),
        ({"adacd": {"temperature": 1}}, "adacd.temperature"),
        ({"adacd": {"max_new_tokens": 1}}, "adacd.max_new_tokens"),
    ],
)
def test_an_unknown_field_is_named(fields: dict[str, Any], param: str) -> None:
    assert refusal(f"chat {shown(fields)}", json.dumps(CHAT | fields).encode()) == (param, "unknown_field")


@pytest.mark.parametrize(
    ("own", "unused"),
    [
        ({"method": "adacd", "alpha": 3, "contrast_steps": 2, "trace": True, "gate": True}, ()),
        ({"method": "selfcd", "selfcd_strength": 1, "safety_prompt": "Be good."}, ()),
        ({"method": "safedecoding", "safedecoding_steps": 1, "contrast_prompt": "No!"}, ()),
        ({"method": "default", "alpha": 3}, ("adacd.alpha",)),
        ({"selfcd_strength": 2}, ("adacd.selfcd_strength",)),
    ],
)
def test_a_field_that_the_method_does_not_use_is_a_warning(
    own: dict[str, Any], unused: tuple[str, ...]
) -> None:
    warnings = understood(json.dumps(CHAT | {"adacd": own}).encode()).warnings
    for warning, field in zip(warnings, unused, strict=True):
        check("server", f"unused {field}", warning)
        assert f"`{field}`" in warning


def test_a_negative_seed_is_a_seed() -> None:
    assert understood(json.dumps(CHAT | {"seed": -1}).encode()).settings.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"adacd": {"alpha": -1}}, "adacd.alpha"),
        ({"adacd": {"alpha": "3"}}, "adacd.alpha"),
        ({"adacd": {"contrast_steps": 1.5}}, "adacd.contrast_steps"),
        ({"adacd": {"method": "default", "gate": True}}, "adacd.gate"),
        ({"adacd": {"gate": True, "method": "selfcd"}}, "adacd.gate"),
        ({"adacd": {"contrast_placement": "nowhere"}}, "adacd.contrast_placement"),
    ],
)
def test_a_value_that_a_setting_refuses_is_named(fields: dict[str, Any], param: str) -> None:
    assert refusal(None, json.dumps(CHAT | fields).encode()) == (param, None)


def test_a_field_that_is_missing_is_named() -> None:
    assert refusal("missing", json.dumps({"model": "m"}).encode()) == ("messages", "missing")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[1], [-2]]}, "prompt[1][0]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [1, "b"]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"best_of": 2}, "best_of"),
        ({"echo": 1}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_a_refusal_of_a_completion_names_the_field(fields: dict[str, Any], param: str) -> None:
    body = json.dumps(TEXT | fields).encode()
    assert refusal(f"text {shown(fields)}", body, CompletionRequest) == (param, None)


def test_a_completion_has_no_messages() -> None:
    body = json.dumps(TEXT | {"messages": []}).encode()
    assert refusal("text messages", body, CompletionRequest) == ("messages", "unknown_field")


def test_what_a_request_holds_changes_the_servers_settings_for_it_alone() -> None:
    fields = {
        "max_completion_tokens": 7,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 9,
        "stop": ["a", "b"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 4,
        "adacd": {
            "gate": True,
            "method": "adacd",
            "alpha": 2,
            "contrast_prompt": "No!",
            "trace": True,
            "candidates": 5,
        },
    }
    expected = Settings(
        max_new_tokens=7,
        temperature=1.0,
        top_p=0.5,
        top_k=3,
        seed=9,
        stop=("a", "b"),
        gate=True,
        alpha=2.0,
        contrast_prompt="No!",
    )
    assert understood(json.dumps(CHAT | fields).encode()) == Params(
        expected, True, 5, 4, True, True, contrast_prompts={"adacd.contrast_prompt": "No!"}
    )


def test_what_asks_for_nothing_is_accepted() -> None:
    fields = {
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "none",
        "modalities": ["text"],
        "store": False,
        "service_tier": "auto",
        "user": "u",
        "metadata": {"a": "b"},
        "temperature": None,
        "stop": None,
        "adacd": None,
        "stream_options": None,
        **message(refusal=None, tool_calls=[], audio=None),
    }
    plain = Params(Settings(max_new_tokens=100))
    assert understood(json.dumps(CHAT | fields).encode()) == plain
    own = {"best_of": 1, "echo": False, "suffix": None, "prompt": ["Once"]}
    assert understood(json.dumps(TEXT | own).encode(), CompletionRequest) == plain


def test_an_answer_is_no_longer_than_the_server_allows() -> None:
    body = json.dumps(CHAT | {"max_tokens": 51}).encode()
    assert refusal("max_tokens over the limit", body, most=50) == ("max_tokens", None)
    assert understood(json.dumps(CHAT).encode(), most=50).settings.max_new_tokens == 50


def test_system_and_developer_messages_are_one_system_text() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    body = ChatRequest.model_validate({"model": "m", "messages": messages})
    turns = (Message("user", "Hi?"), Message("assistant", "Yes?"), Message("user", "Why?"))
    assert conversation_of(body, "the server's own") == Conversation(turns, "Be brief.\n\nBe\nkind.")
    alone = ChatRequest.model_validate(CHAT)
    assert conversation_of(alone, "the server's own") == Conversation.ask("Hi?", "the server's own")
