"""The fields of a request: every refusal with its field, and what each field does to the settings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.server.errors import api_error
from adacd_cli.server.params import Params, conversation_of, read_params
from adacd_cli.server.schema import ChatRequest, CompletionRequest
from tests.golden import check

QUESTIONS: list[Any] = [{"role": "user", "content": "Hi?"}]
CHAT = {"model": "m", "messages": QUESTIONS}
BEGUN = [*QUESTIONS, {"role": "assistant", "content": "To "}]
CALL = {"id": "c1", "type": "function", "function": {"name": "ps", "arguments": '{"all": true}'}}
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
        ({"messages": QUESTIONS * 10_001}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": -0.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias.1"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 10**4000}, "seed"),
        ({"seed": True}, "seed"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ["x" * 501]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"continuous_usage_stats": 1}}, "stream_options.continuous_usage_stats"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"guided_json": {}, "json_schema": {}}, "json_schema"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice"),
        ({"guided_choice": ["a", "b"]}, "guided_choice"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"reasoning_effort": "some"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, "chat_template_kwargs.enable_thinking"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"continue_final_message": False, "messages": BEGUN}, "continue_final_message"),
        ({"add_generation_prompt": True, "messages": BEGUN}, "add_generation_prompt"),
        (
            {"continue_final_message": True, "add_generation_prompt": True, "messages": BEGUN},
            "add_generation_prompt",
        ),
        (message(role="tool"), "messages"),
        (message(role="bot"), "messages[0].role"),
        (message(name=3), "messages[0].name"),
        (message(content=None), "messages[0].content"),
        (message(audio={"id": "a"}), "messages[0].audio"),
        (message(tool_calls=[{"function": 3}]), "messages[0].tool_calls[0].function"),
        ({"messages": [*QUESTIONS, {"role": "assistant", "tool_calls": [CALL]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "To"}]}, "messages"),
        (message(content=3), "messages[0].content"),
        (message(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages[0].content[0].type"),
        (message(content=["x"]), "messages[0].content[0]"),
        ({"adacd": []}, "adacd"),
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
        ({"adacd": {"alfa": 1}}, "adacd.alfa"),
        ({"adacd": {"z" * 999: 1}}, f"adacd.{'z' * 194}"),
        ({"adacd": {"min_p": 0.1}}, "adacd.min_p"),
        ({"adacd": {"lambda": 1}}, "adacd.lambda"),
        ({"adacd": {"model": "x"}}, "adacd.model"),
        ({"adacd": {"temperature": 1}}, "adacd.temperature"),
        ({"adacd": {"max_new_tokens": 1}}, "adacd.max_new_tokens"),
    ],
)
def test_an_unknown_field_of_adacds_own_is_refused(fields: dict[str, Any], param: str) -> None:
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


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"temprature": 1}, ["temprature"]),
        ({"zzz": None, "echo": False, "skip_special_tokens": True, "store": False}, []),
        (
            {"store": True, "verbosity": "low", "prediction": {"type": "content"}},
            ["store", "verbosity", "prediction"],
        ),
        ({"z" * 999: 1}, ["z" * 80 + "…"]),
        ({"a\u001b[31m\n": 1}, [r"a\x1b[31m\n"]),
        ({"stream": True, "stream_options": {"include_usge": True}}, ["stream_options.include_usge"]),
        (message(contents=1), ["messages[0].contents"]),
        ({"messages": [{**message(x=1)["messages"][0], "id": "m", "timestamp": 3}] * 9}, ["messages[0].x"]),
        (
            message(content=[{"type": "text", "text": "x", "txt": 1, "cache_control": {}}]),
            ["messages[0].content[0].txt"],
        ),
        ({"max_tokens": 3, "max_completion_tokens": 4}, ["max_completion_tokens"]),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, ["strict"]),
        (
            {
                "messages": [
                    *QUESTIONS,
                    {"role": "assistant", "tool_calls": [{**CALL, "mood": 1}]},
                    *QUESTIONS,
                ]
            },
            ["messages[1].tool_calls[0].mood"],
        ),
        ({"tools": [{"type": "web_search"}]}, ["tools"]),
        ({"messages": [{"role": "system", "content": "Hi?"}]}, []),
    ],
)
def test_what_is_not_used_is_named_in_a_warning(fields: dict[str, Any], names: list[str]) -> None:
    warnings = understood(json.dumps(CHAT | fields).encode()).warnings
    assert [f"`{name}`" in warning for name, warning in zip(names, warnings, strict=False)] == [True] * len(
        names
    )
    assert len(warnings) == (len(names) or "messages" in fields)
    for place, warning in enumerate(warnings):
        check("server", f"warning {shown(fields)[:60]} {place}", warning)


def test_of_many_unknown_fields_some_are_named() -> None:
    *named, more = understood(json.dumps(CHAT | {f"x{n}": 1 for n in range(10_001)}).encode()).warnings
    assert (len(named), more) == (20, "9981 more fields do not exist.")


@pytest.mark.parametrize("messages", [[{"role": "user", "content": "x"}], 5])
def test_unknown_fields_of_a_completion_are_named_too(messages: Any) -> None:
    (warning,) = understood(json.dumps(TEXT | {"messages": messages}).encode(), CompletionRequest).warnings
    assert warning == "There is no field `messages`, so it was not used."


def test_what_a_request_holds_changes_the_servers_settings_for_it_alone() -> None:
    fields = {
        "max_completion_tokens": 7,
        "temperature": 1,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 9,
        "stop": ["a", "b"],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": -1,
        "frequency_penalty": 0.5,
        "logit_bias": {"5": -100, "17": 2.5},
        "min_tokens": 3,
        "stop_token_ids": [7, 8],
        "ignore_eos": True,
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
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=-1.0,
        frequency_penalty=0.5,
        logit_bias=("5:-100.0", "17:2.5"),
        min_tokens=3,
        stop_token_ids=(7, 8),
        ignore_eos=True,
        seed=9,
        stop=("a", "b"),
        gate=True,
        alpha=2.0,
        contrast_prompt="No!",
    )
    assert understood(json.dumps(CHAT | fields).encode()) == Params(
        expected, True, 5, 4, True, True, True, contrast_prompts={"adacd.contrast_prompt": "No!"}
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
        "stream_options": {"include_usage": True},
        "repetition_penalty": 1.0,
        "min_p": 0,
        "top_k": -1,
        "min_tokens": 0,
        "ignore_eos": False,
        "stop_token_ids": [],
        "top_logprobs": 0,
        "functions": [],
        "function_call": "auto",
        "parallel_tool_calls": True,
        "verbosity": "medium",
        "chat_template_kwargs": {},
        "add_generation_prompt": True,
        "continue_final_message": False,
        **message(refusal=None, tool_calls=[], audio=None, parsed=None, reasoning=None),
    }
    plain = Params(Settings(max_new_tokens=100))
    assert understood(json.dumps(CHAT | fields).encode()) == replace(plain, usage=True)
    for stop in ("", [], [""]):
        assert understood(json.dumps(CHAT | {"stop": stop}).encode()) == plain
    own = {"best_of": 1, "echo": False, "suffix": None, "prompt": ["Once"]}
    assert understood(json.dumps(TEXT | own).encode(), CompletionRequest) == plain


def test_either_name_of_the_length_is_taken_in_both_kinds() -> None:
    for body, kind in ((CHAT, ChatRequest), (TEXT, CompletionRequest)):
        params = understood(json.dumps(body | {"max_completion_tokens": 7}).encode(), kind)
        assert (params.settings.max_new_tokens, params.warnings) == (7, ())


def test_an_answer_is_no_longer_than_the_server_allows() -> None:
    body = json.dumps(CHAT | {"max_tokens": 51}).encode()
    assert refusal("max_tokens over the limit", body, most=50) == ("max_tokens", None)
    assert understood(json.dumps(CHAT).encode(), most=50).settings.max_new_tokens == 50
    anything = json.dumps(CHAT | {"max_tokens": -1}).encode()
    assert understood(anything, most=50).settings.max_new_tokens == 50
    assert understood(anything).settings.max_new_tokens == 2**31 - 1


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


def conversation(*messages: dict[str, Any], **fields: Any) -> Conversation:
    """What is made of messages."""
    return conversation_of(ChatRequest.model_validate({"messages": list(messages), **fields}), None)


def test_what_clients_send_back_is_taken_as_it_was_meant() -> None:
    talk = conversation(
        {
            "role": "user",
            "name": "Ann",
            "content": [{"type": "input_text", "text": "Hi?", "cache_control": {}}],
        },
        {"role": "assistant", "content": None, "refusal": "No.", "parsed": None, "audio": None, "id": "m1"},
        {"role": "user", "content": "Ho?"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}], "reasoning": "Hm."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Ps?"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "PID 7"},
        {"role": "assistant", "content": "", "function_call": {"name": "ps", "arguments": "no JSON"}},
        {"role": "function", "name": "ps", "content": None},
        {"role": "assistant", "content": "It is "},
    )
    called = {"id": "c1", "type": "function", "function": {"name": "ps", "arguments": {"all": True}}}
    other = {
        "id": None,
        "type": "function",
        "function": {"name": "ps", "arguments": {"arguments": "no JSON"}},
    }
    assert talk == Conversation(
        (
            Message("user", "Hi?", {"name": "Ann"}),
            Message("assistant", "No."),
            Message("user", "Ho?"),
            Message("assistant", "Never.", {"reasoning_content": "Hm."}),
            Message("system", "Be brief."),
            Message("user", "Ps?"),
            Message("assistant", "", {"tool_calls": [called]}),
            Message("tool", "PID 7", {"tool_call_id": "c1"}),
            Message("assistant", "", {"tool_calls": [other]}),
            Message("tool", "", {"name": "ps"}),
            Message("assistant", "It is "),
        )
    )


def test_a_lone_system_message_is_the_question() -> None:
    system = {"role": "system", "content": "Be kind."}
    assert conversation(system, {"role": "developer", "content": "Hi?"}) == Conversation.ask(
        "Hi?", "Be kind."
    )


def test_arguments_that_nest_without_end_are_text() -> None:
    deep = {"name": "f", "arguments": "[" * 100_000}
    turn = conversation(*QUESTIONS, {"role": "assistant", "function_call": deep}, *QUESTIONS).messages[1]
    assert turn.extra["tool_calls"][0]["function"]["arguments"] == {"arguments": deep["arguments"]}


def test_the_template_gets_tools_and_variables() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    fields = {"tools": [tool, {"type": "web_search"}], "functions": [{"name": "g"}], "tool_choice": "auto"}
    kwargs = {"enable_thinking": True, "tone": "kind"}
    talk = conversation(*QUESTIONS, **fields, chat_template_kwargs=kwargs, reasoning_effort="minimal")
    assert talk.variables == {
        "tone": "kind",
        "reasoning_effort": "low",
        "tools": [tool, {"type": "function", "function": {"name": "g"}}],
    }


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False),
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"reasoning_effort": "high", "adacd": {"thinking": False}}, False),
        ({"chat_template_kwargs": {"enable_thinking": None}}, True),
    ],
)
def test_who_decides_whether_to_think(fields: dict[str, Any], thinking: bool) -> None:
    body = ChatRequest.model_validate(CHAT | fields)
    assert read_params(body, Settings(thinking=True)).settings.thinking is thinking


@pytest.mark.parametrize("fields", [{}, {"continue_final_message": True, "add_generation_prompt": False}])
def test_an_answer_that_has_begun_is_continued(fields: dict[str, Any]) -> None:
    assert conversation(*BEGUN, **fields) == Conversation.ask("Hi?").with_assistant("To ")
