"""What a request may hold: every refusal in its words, and what each field does to the settings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.server.asked import Limits, Wanted, wanted
from adacd_cli.server.errors import ApiError
from adacd_cli.server.reading import parse
from adacd_cli.server.said import conversation_of
from adacd_cli.server.schema import ChatRequest, CompletionRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi?"}]}
TEXT = {"model": "m", "prompt": "Once"}


def understood(body: bytes, model: Any = ChatRequest, limits: Limits | None = None) -> Wanted:
    """The whole way from the bytes to what is wanted."""
    asked = parse(body, model)
    want = wanted(asked, Settings(max_new_tokens=100), limits or Limits())
    if isinstance(asked, ChatRequest):
        conversation_of(asked, None)
    return want


def refusal(body: bytes, model: Any = ChatRequest, limits: Limits | None = None) -> tuple[str, str | None]:
    """Message and param of the refusal."""
    with pytest.raises(ApiError) as raised:
        understood(body, model, limits)
    assert raised.value.status == 400
    return raised.value.message, raised.value.param


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi?", **fields}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not JSON: EOF while parsing a value at line 1 column 0."),
        (b"{nope", "The body is not JSON: key must be a string at line 1 column 2."),
        (b'{"model": "\xff"}', "The body is not JSON: invalid unicode code point at line 1 column 12."),
        (b"[" * 100_000, "The body is not JSON: recursion limit exceeded at line 1 column 202."),
        (b"[]", "The body is not a JSON object."),
        (b"null", "The body is not a JSON object."),
        (b"NaN", "The body is not a JSON object."),
        (
            b'{"model": "\\ud800"}',
            "The body is not JSON: unexpected end of hex escape at line 1 column 18 (a half of a surrogate "
            "pair is no text).",
        ),
        (
            b'{"seed": ' + b"9" * 5000 + b"}",
            "The body is not JSON: number out of range at line 1 column 4311.",
        ),
    ],
)
def test_a_body_that_is_no_json_object(body: bytes, said: str) -> None:
    assert refusal(body) == (said, None)


NO_TOOLS = "There are no tools and no functions here."


@pytest.mark.parametrize(
    ("fields", "said", "param"),
    [
        ({"model": 3}, "`model` takes a text; got 3.", "model"),
        ({"messages": None}, "`messages` takes a list.", "messages"),
        ({"messages": []}, "`messages` holds at least 1.", "messages"),
        (
            {"messages": [QUESTION := CHAT["messages"][0]] * 10_001},
            "`messages` holds at most 10000.",
            "messages",
        ),
        ({"temperature": 9}, "`temperature` is at most 2; got 9.", "temperature"),
        ({"temperature": -0.5}, "`temperature` is at least 0; got -0.5.", "temperature"),
        ({"temperature": float("nan")}, "`temperature` is a finite number.", "temperature"),
        ({"temperature": "1"}, "`temperature` takes a number.", "temperature"),
        ({"top_p": 0}, "`top_p` is above 0; got 0.", "top_p"),
        ({"top_k": -1}, "`top_k` is at least 0; got -1.", "top_k"),
        ({"top_k": -1}, "`top_k` is at least 0; got -1.", "top_k"),
        ({"seed": 2**63}, "`seed` is at most 9223372036854775807; got 9223372036854775808.", "seed"),
        ({"seed": 10**4000}, "`seed` is at most 9223372036854775807.", "seed"),
        ({"seed": True}, "`seed` takes a whole number; got true.", "seed"),
        ({"max_tokens": -1}, "`max_tokens` is at least 0; got -1.", "max_tokens"),
        ({"max_tokens": 1.5}, "`max_tokens` takes a whole number; got 1.5.", "max_tokens"),
        (
            {"max_tokens": 3, "max_completion_tokens": 4},
            "`max_tokens` and `max_completion_tokens` differ; give one of them.",
            "max_completion_tokens",
        ),
        ({"stop": [1]}, "`stop[0]` takes a text; got 1.", "stop[0]"),
        ({"stop": ""}, "A text of `stop` has 1 to 500 characters.", "stop"),
        ({"stop": ["x" * 501]}, "A text of `stop` has 1 to 500 characters.", "stop"),
        ({"stop": ["x"] * 17}, "`stop` holds at most 16 texts.", "stop"),
        ({"stream": "yes"}, "`stream` takes true or false.", "stream"),
        ({"stream_options": {}}, "`stream_options` is for a request with `stream`.", "stream_options"),
        ({"top_logprobs": 2}, "`top_logprobs` is for a request with `logprobs`.", "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "`top_logprobs` is at most 20; got 21.", "top_logprobs"),
        ({"logprobs": 3}, "`logprobs` takes true or false; got 3.", "logprobs"),
        ({"n": 2}, "`n` is 1: one choice an answer; ask several times for several.", "n"),
        ({"n": True}, "`n` is 1: one choice an answer; ask several times for several.", "n"),
        ({"tools": [{"type": "function"}]}, NO_TOOLS, "tools"),
        ({"tool_choice": "required"}, NO_TOOLS, "tool_choice"),
        ({"functions": [{}]}, NO_TOOLS, "functions"),
        ({"logit_bias": {"1": 1}}, "`logit_bias` is not supported.", "logit_bias"),
        (
            {"presence_penalty": 0.1},
            "There are no penalties here; `presence_penalty` is 0.",
            "presence_penalty",
        ),
        (
            {"response_format": {"type": "json_object"}},
            "Answers are text; `response_format` is `text`.",
            "response_format",
        ),
        ({"modalities": ["text", "audio"]}, "Answers are text.", "modalities"),
        (
            {"reasoning_effort": "high"},
            'Use {"adacd": {"thinking": true}} instead of `reasoning_effort`.',
            "reasoning_effort",
        ),
        ({"store": True}, "Nothing is stored here.", "store"),
        ({"temprature": 1}, "There is no field `temprature`. Did you mean `temperature`?", "temprature"),
        ({"zzz": None}, "There is no field `zzz`.", "zzz"),
        ({"z" * 999: 1}, f"There is no field `{'z' * 80}…`.", "z" * 200),
        (
            {"stream": True, "stream_options": {"include_usge": True}},
            "There is no field `stream_options.include_usge`. Did you mean `include_usage`?",
            "stream_options.include_usge",
        ),
        (
            message(contents=1),
            "There is no field `messages[0].contents`. Did you mean `content`?",
            "messages[0].contents",
        ),
        (
            message(role="tool"),
            "There are no tools here, so no message has the role tool or function. (`messages[0].role`)",
            "messages[0].role",
        ),
        (
            message(role="bot"),
            "`messages[0].role` is 'system', 'developer', 'user' or 'assistant'.",
            "messages[0].role",
        ),
        (
            message(name="Ann"),
            "A chat template knows no names of participants. (`messages[0].name`)",
            "messages[0].name",
        ),
        (
            message(content=None),
            "A message's `content` is its text; it cannot be null. (`messages[0].content`)",
            "messages[0].content",
        ),
        (message(content=3), "`messages[0].content` takes a text; got 3.", "messages[0].content"),
        (
            message(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
            "Only parts of type `text` can be read: no images, no audio, no files. (`messages[0].content[0].type`)",
            "messages[0].content[0].type",
        ),
        (
            message(content=[{"type": "text", "text": "x", "txt": 1}]),
            "There is no field `messages[0].content[0].txt`. Did you mean `text`?",
            "messages[0].content[0].txt",
        ),
        (message(content=["x"]), "`messages[0].content[0]` takes an object.", "messages[0].content[0]"),
        (
            {"messages": [*CHAT["messages"], {"role": "assistant", "content": "Yes"}]},
            "The last message is not the user's, so there is nothing to answer; an answer that has begun cannot be gone on with.",
            "messages",
        ),
        (
            {"messages": [*CHAT["messages"], {"role": "developer", "content": "x"}, *CHAT["messages"]]},
            "Message 2 has the role developer, which stands only at the beginning.",
            "messages[1].role",
        ),
        ({"adacd": []}, "`adacd` takes an object.", "adacd"),
        ({"adacd": {"alfa": 1}}, "There is no field `adacd.alfa`. Did you mean `alpha`?", "adacd.alfa"),
        (
            {"adacd": {"lambda": 1}},
            "There is no field `adacd.lambda`. Did you mean `agreement_threshold`?",
            "adacd.lambda",
        ),
        ({"adacd": {"model": "x"}}, "There is no field `adacd.model`.", "adacd.model"),
        (
            {"adacd": {"temperature": 1}},
            "`temperature` stands at the root of the request, not in `adacd`.",
            "adacd.temperature",
        ),
        (
            {"adacd": {"max_new_tokens": 1}},
            "`max_tokens` stands at the root of the request, not in `adacd`.",
            "adacd.max_new_tokens",
        ),
        ({f"x{n}": 1 for n in range(10_001)}, "The body is wrong in 10001 places.", None),
        (
            message(content=[{"type": "text", "text": "a"}] * 1001),
            "`messages[0].content` holds at most 1000.",
            "messages[0].content",
        ),
        (
            {"adacd": {"expert": "/etc"}},
            "`expert` is chosen when the server is started, not by a request.",
            "adacd.expert",
        ),
        (
            {"adacd": {"alpha": -1}},
            "`alpha` is in [0, 1000000]; got -1 (from the request). Strength α of the contrast.",
            "adacd.alpha",
        ),
        (
            {"adacd": {"alpha": "3"}},
            "`alpha` takes a number; got '3' (from the request). Strength α of the contrast.",
            "adacd.alpha",
        ),
        (
            {"adacd": {"contrast_steps": 1.5}},
            "`contrast_steps` takes a whole number; got 1.5 (from the request). Length k of the contrast window; 0 is ordinary decoding.",
            "adacd.contrast_steps",
        ),
        (
            {"adacd": {"method": "ssd"}},
            "Method ssd needs a draft, and the server was started without --draft.",
            "adacd.method",
        ),
        (
            {"adacd": {"method": "surgical"}},
            "Method surgical needs a direction, and the server was started without --direction.",
            "adacd.method",
        ),
        (
            {"adacd": {"method": "default", "gate": True}},
            "`gate` is for method adacd; the method is default.",
            "adacd.gate",
        ),
        (
            {"adacd": {"gate": True, "method": "selfcd"}},
            "`gate` is for method adacd; the method is selfcd.",
            "adacd.gate",
        ),
        ({"adacd": {"trace": 1}}, "`adacd.trace` takes true or false.", "adacd.trace"),
        (
            {"adacd": {"candidates": 3}},
            "`adacd.candidates` is for a request with `adacd.trace`.",
            "adacd.candidates",
        ),
        (
            {"adacd": {"trace": True, "candidates": 21}},
            "`adacd.candidates` is a whole number from 0 to 20.",
            "adacd.candidates",
        ),
        (
            {"adacd": {"trace": True, "candidates": True}},
            "`adacd.candidates` is a whole number from 0 to 20.",
            "adacd.candidates",
        ),
    ],
)
def test_a_refusal_of_a_chat_names_the_field(fields: dict[str, Any], said: str, param: str) -> None:
    assert refusal(json.dumps(CHAT | fields).encode()) == (said, param)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"method": "adacd", "alpha": 3, "contrast_steps": 2, "trace": True, "gate": True}, ()),
        ({"method": "selfcd", "selfcd_strength": 1, "safety_prompt": "Be good."}, ()),
        ({"method": "safedecoding", "safedecoding_steps": 1, "contrast_prompt": "No!"}, ()),
        ({"method": "default", "alpha": 3}, ("`adacd.alpha` has no say under method default.",)),
        ({"selfcd_strength": 2}, ("`adacd.selfcd_strength` has no say under method adacd.",)),
    ],
)
def test_what_has_no_say_is_told(own: dict[str, Any], said: tuple[str, ...]) -> None:
    asked = parse(json.dumps(CHAT | {"adacd": own}).encode(), ChatRequest)
    assert wanted(asked, Settings(), Limits()).warnings == said


def test_a_negative_seed_is_a_seed() -> None:
    asked = parse(json.dumps(CHAT | {"seed": -1}).encode(), ChatRequest)
    assert wanted(asked, Settings(), Limits()).settings.seed == 2**63 - 1


def test_a_field_that_is_missing_is_named() -> None:
    body = {name: value for name, value in CHAT.items() if name != "messages"}
    assert refusal(json.dumps(body).encode()) == ("`messages` is missing.", "messages")


@pytest.mark.parametrize(
    ("fields", "said", "param"),
    [
        ({"prompt": None}, "`prompt` takes a text.", "prompt"),
        ({"prompt": ["a", "b"]}, "One prompt a request; ask several times for several.", "prompt"),
        ({"prompt": [[1], [2]]}, "One prompt a request; ask several times for several.", "prompt"),
        ({"prompt": [1.5]}, "`prompt[0]` takes a whole number; got 1.5.", "prompt[0]"),
        ({"prompt": [1, "b"]}, "`prompt[1]` takes a whole number.", "prompt[1]"),
        ({"prompt": [-1]}, "`prompt[0]` is at least 0; got -1.", "prompt[0]"),
        ({"best_of": 2}, "`best_of` is 1: one choice an answer.", "best_of"),
        ({"echo": True}, "The prompt is not repeated; `echo` is false.", "echo"),
        ({"suffix": "x"}, "`suffix` is not supported.", "suffix"),
        ({"logprobs": True}, "`logprobs` takes a whole number; got true.", "logprobs"),
        ({"messages": []}, "There is no field `messages`.", "messages"),
    ],
)
def test_a_refusal_of_a_completion_names_the_field(fields: dict[str, Any], said: str, param: str) -> None:
    assert refusal(json.dumps(TEXT | fields).encode(), CompletionRequest) == (said, param)


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
    assert understood(json.dumps(CHAT | fields).encode()) == Wanted(
        expected, True, 5, 4, True, True, own_prompts={"adacd.contrast_prompt": "No!"}
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
    plain = Wanted(Settings(max_new_tokens=100), False, 0, None, False, False)
    assert understood(json.dumps(CHAT | fields).encode()) == plain
    own = {"best_of": 1, "echo": False, "suffix": None, "prompt": ["Once"]}
    assert understood(json.dumps(TEXT | own).encode(), CompletionRequest) == plain


def test_an_answer_is_no_longer_than_the_server_allows() -> None:
    limits = Limits(answer_tokens=50)
    body = json.dumps(CHAT | {"max_tokens": 51}).encode()
    assert refusal(body, limits=limits) == (
        "`max_tokens` is at most 50 on this server; got 51.",
        "max_tokens",
    )
    assert understood(json.dumps(CHAT).encode(), limits=limits).settings.max_new_tokens == 50


def test_system_and_developer_messages_are_one_system_text() -> None:
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why?"},
    ]
    asked = parse(json.dumps({"model": "m", "messages": said}).encode(), ChatRequest)
    turns = (Message("user", "Hi?"), Message("assistant", "Yes?"), Message("user", "Why?"))
    assert conversation_of(asked, "the server's own") == Conversation(turns, "Be brief.\n\nBe\nkind.")
    alone = parse(json.dumps(CHAT).encode(), ChatRequest)
    assert conversation_of(alone, "the server's own") == Conversation.ask("Hi?", "the server's own")
