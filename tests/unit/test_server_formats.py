"""Several answers to a request, a prompt's log-probabilities, the formats of Responses, Anthropic and Ollama."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from adacd_cli.config import Settings
from adacd_cli.engine import scheduler
from adacd_cli.errors import LogitsError, OutOfMemoryError
from adacd_cli.server import messages_api, ollama_api, responses_api
from adacd_cli.server.messages_api import MessagesRequest, Turn
from adacd_cli.server.ollama_api import OllamaChat, OllamaGenerate
from adacd_cli.server.responses_api import ResponsesRequest
from tests.serving import ALPHABET, QUESTION, Loaded, Site, Slow, chunks, letters, site

OWN = {"method": "adacd", "added": 1, "subtracted": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    settings = Settings(alpha=1.0, contrast_steps=1, max_new_tokens=40)
    with site(letters(), settings=settings, max_prompt_tokens=300, queue_size=0) as server:
        yield server


def post(server: Site, path: str, **body: Any) -> Any:
    return server.http.post(path, json={"model": "letters", **body})


def lines(response: Any) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


def events(response: Any) -> list[Any]:
    """The data of named events, whose names are their types."""
    told = [event.split("\n") for event in response.text.split("\n\n") if event]
    data = [json.loads(line.removeprefix("data: ")) for _, line in told]
    assert [f"event: {each['type']}" for each in data] == [name for name, _ in told]
    return data


# --- several answers ---


def test_several_prompts_have_n_answers_each_in_their_order(server: Site) -> None:
    body = post(server, "/v1/completions", prompt=["say ", [6, 7]], n=2, max_tokens=2).json()
    choice = {"text": "ab", "logprobs": None, "finish_reason": "length", "adacd": OWN}
    assert body["choices"] == [{"index": index, **choice} for index in range(4)]
    assert body["usage"]["prompt_tokens"] == 5 + 3  # each once, and what the tokenizer begins with
    assert (body["usage"]["completion_tokens"], body["adacd"]) == (8, {**OWN, "added": 4})


def test_the_answers_of_a_stream_are_told_apart_by_their_index(server: Site) -> None:
    *said, usage, done = chunks(
        server.chat(n=2, max_tokens=2, stream=True, stream_options={"include_usage": True})
    )
    assert (done, usage["usage"]["completion_tokens"], len({each["id"] for each in said})) == ("[DONE]", 4, 1)
    choices = [each["choices"][0] for each in said]
    for index in range(2):
        own = [each for each in choices if each["index"] == index]
        assert "".join(each["delta"].get("content", "") for each in own) == "ab"
        assert [each["finish_reason"] for each in own][-1] == "length"


def test_answer_i_is_that_of_the_seed_plus_i(server: Site) -> None:
    def ask(**fields: Any) -> list[str]:
        body = server.chat(temperature=2.0, max_tokens=30, **fields).json()
        return [each["message"]["content"] for each in body["choices"]]

    assert ask(seed=7, n=3) == [*ask(seed=7), *ask(seed=8), *ask(seed=9)]
    assert len(set(ask(n=3))) == 3  # the server has no seed of its own


def test_more_answers_than_are_allowed(server: Site) -> None:
    error = post(server, "/v1/completions", prompt=["a"] * 65, n=2).json()["error"]
    assert error["param"] == "n" and "128" in error["message"]


def test_the_prompts_behind_one_that_is_refused_are_not_answered(server: Site) -> None:
    for stream in (False, True):
        refused = post(server, "/v1/completions", prompt=["a", "b" * 500, "c"], stream=stream)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")
    assert server.chat(max_tokens=1).status_code == 200  # with no queue: every slot is free again


def test_a_failure_of_one_answer_ends_all() -> None:
    slow = Slow()
    slow.fails[1] = LogitsError("Not finite.")
    with site(Loaded(slow)) as server:
        slow.steps.release(4)
        assert server.chat(n=3, max_tokens=9).status_code == 500
        slow.steps.release(4)
        assert server.chat(max_tokens=1).status_code == 200


# --- the prompt, repeated and scored ---


def test_an_echo_has_the_log_probabilities_of_its_prompt(server: Site) -> None:
    body = post(server, "/v1/completions", prompt="xyabd", echo=True, logprobs=2, max_tokens=1).json()
    (choice,) = body["choices"]
    told = choice["logprobs"]
    assert (choice["text"], "".join(told["tokens"])) == ("xyabde", "xyabde")
    assert told["text_offset"] == [0, 1, 2, 3, 4, 5]
    likely, unlikely = told["token_logprobs"][1], told["token_logprobs"][4]
    assert math.isclose(unlikely, likely - 12, abs_tol=1e-4)  # d is not what follows b
    assert told["token_logprobs"][2] == unlikely  # nor a what follows y
    assert told["top_logprobs"][4].keys() > {"c", "d"}
    assert [max(each, key=each.get) for each in told["top_logprobs"][1:]] == ["y", "z", "b", "c", "e"]
    assert body["usage"]["completion_tokens"] == 1


def test_an_echo_may_have_no_answer_and_holds_the_ids_that_were_given(server: Site) -> None:
    told = [
        post(server, "/v1/completions", prompt=prompt, echo=True, logprobs=0, max_tokens=0).json()["choices"][
            0
        ]
        for prompt in ("abc", letters().tokenizer("abc", add_special_tokens=False)["input_ids"])
    ]
    assert told[0] == told[1]
    assert (told[0]["text"], told[0]["logprobs"]["tokens"]) == ("abc", ["a", "b", "c"])
    begin = letters().tokenizer("abc")["input_ids"]
    whole = post(server, "/v1/completions", prompt=begin, echo=True, logprobs=0, max_tokens=0).json()
    values = whole["choices"][0]["logprobs"]["token_logprobs"]
    assert len(values) == len(begin) and values[0] is None
    assert values[-3:] == told[0]["logprobs"]["token_logprobs"][-3:]


def test_an_echo_of_several_prompts_as_a_stream(server: Site) -> None:
    body = {"prompt": ["ab", "cd"], "echo": True, "logprobs": 1, "max_tokens": 2}
    whole = post(server, "/v1/completions", **body).json()["choices"]
    *said, _ = chunks(post(server, "/v1/completions", **body, stream=True))
    for index in range(2):
        own = [each["choices"][0] for each in said if each["choices"][0]["index"] == index]
        assert "".join(each["text"] for each in own) == whole[index]["text"]
        tokens = [token for each in own if each["logprobs"] for token in each["logprobs"]["tokens"]]
        assert tokens == whole[index]["logprobs"]["tokens"] == list(whole[index]["text"])


def test_a_long_prompt_is_scored_in_chunks_as_it_is_whole(server: Site) -> None:
    told = post(server, "/v1/completions", prompt=ALPHABET * 9, echo=True, logprobs=0, max_tokens=0).json()
    values = told["choices"][0]["logprobs"]["token_logprobs"]
    assert len(values) == 26 * 9
    wrapped = [values[place] for place in range(26, 26 * 9, 26)]  # an a behind a z
    others = [value for place, value in enumerate(values) if place % 26]
    assert max(wrapped) < -11 < -0.1 < min(others)


def test_an_echo_alone_is_text(server: Site) -> None:
    (choice,) = post(server, "/v1/completions", prompt="abc", echo=True, max_tokens=2).json()["choices"]
    assert (choice["text"], choice["logprobs"]) == ("abcde", None)


def test_an_echo_that_cannot_be(server: Site) -> None:
    asked = {"echo": True, "logprobs": 0, "max_tokens": 1}
    huge = post(server, "/v1/completions", prompt=[3, 2**70], **asked)
    assert (huge.status_code, huge.json()["error"]["param"]) == (400, "prompt")
    full = post(server, "/v1/completions", prompt="a" * 400, **asked)
    assert (full.status_code, full.json()["error"]["code"]) == (400, "context_length_exceeded")
    with site(Loaded(Slow(), server="http://model.example")) as remote:
        told = post(remote, "/v1/completions", prompt="a", **asked)
        assert (told.status_code, told.json()["error"]["param"]) == (400, "echo")


def test_a_model_that_breaks_while_it_scores_refuses_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*given: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(scheduler, "score", breaks)
    with site(letters()) as own:
        told = post(own, "/v1/completions", prompt="a", echo=True, logprobs=0)
        assert (told.status_code, told.json()["error"]["code"]) == (503, "failed")
        assert own.chat().status_code == 503


def test_memory_that_is_short_while_a_prompt_is_scored_ends_that_request_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(*given: Any) -> Any:
        raise OutOfMemoryError("too little")

    with site(letters()) as own, ThreadPoolExecutor(1) as clients:
        monkeypatch.setattr(scheduler, "score", short)
        other = clients.submit(own.chat)
        told = post(own, "/v1/completions", prompt="a", echo=True, logprobs=0)
        assert (told.status_code, told.json()["error"]["code"]) == (503, "out_of_memory")
        assert other.result().json()["choices"][0]["message"]["content"] == ALPHABET


# --- other formats ---

USAGE = {"input_tokens": 22, "output_tokens": 2}


def test_responses(server: Site) -> None:
    body = post(server, "/v1/responses", input="Hi?", max_output_tokens=2).json()
    message = body["output"][0]
    assert (body["object"], body["status"]) == ("response", "incomplete")
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert message["content"] == [{"type": "output_text", "text": "ab", "annotations": [], "logprobs": []}]
    assert {name: body["usage"][name] for name in USAGE} == USAGE
    assert body["adacd"] == OWN

    told = events(post(server, "/v1/responses", input=[QUESTION], max_output_tokens=2, stream=True))
    assert [each["type"].removeprefix("response.") for each in told] == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done", "content_part.done"),
        *("output_item.done", "incomplete"),
    ]
    assert [each["sequence_number"] for each in told] == list(range(10))
    last = told[-1]["response"]
    assert last["output"][0]["content"] == message["content"] and last["usage"] == body["usage"]
    assert told[0]["response"]["output"] == [] and told[-1]["response"]["id"] == told[0]["response"]["id"]


CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "1", "output": "3"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "Hi?", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "Hi?", "background": True}, "background"),
        ({"input": "Hi?", "max_output_tokens": -1}, "max_output_tokens"),
        ({"input": "Hi?", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "Hi?", "temperature": 9}, "temperature"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": [{"type": "item_reference", "id": "1"}]}, "input[0].type"),
        (
            {"input": [QUESTION, {"role": "user", "content": [{"type": "input_image"}]}]},
            "input[1].content[0].type",
        ),
        ({"instructions": "x", "input": [{"role": "bot", "content": "x"}]}, "input[0].role"),
        ({"input": [QUESTION, {**CALL, "arguments": 3}, RESULT]}, "input[1].arguments"),
        ({"input": [QUESTION, CALL, {**RESULT, "output": 3}]}, "input[2].output"),
        ({"input": "Hi?", "reasoning": {"effort": "some"}}, "reasoning.effort"),
        ({"input": "Hi?", "max_tokens": -2}, "max_tokens"),
        ({"input": "Hi?", "stop_token_ids": [10**6]}, "stop_token_ids"),
    ],
)
def test_what_responses_refuses_by_its_own_names(server: Site, fields: Any, param: str) -> None:
    response = post(server, "/v1/responses", **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def prompt_of(server: Site, path: str, **body: Any) -> Any:
    """How many tokens a conversation is."""
    usage = post(server, path, **body).json()
    return usage["usage"]["input_tokens"] if "usage" in usage else usage["prompt_eval_count"]


def test_a_conversation_is_the_same_in_every_format(server: Site) -> None:
    turns = [QUESTION, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}]
    chat = [{"role": "system", "content": "Be kind."}, *turns]
    length = server.chat(messages=chat, max_tokens=1).json()["usage"]["prompt_tokens"]
    parts = {"user": "input_text", "assistant": "output_text", "system": "input_text"}
    items = [
        {"role": each["role"], "content": [{"type": parts[each["role"]], "text": each["content"]}]}
        for each in chat
    ]
    blocks = [
        {"role": each["role"], "content": [{"type": "text", "text": each["content"]}]} for each in turns
    ]
    cached = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    limit = {"options": {"num_predict": 1}, "stream": False}
    assert length == prompt_of(server, "/v1/responses", input=turns, instructions="Be kind.")
    assert length == prompt_of(server, "/v1/responses", input=items, max_output_tokens=1)
    assert length == prompt_of(server, "/v1/messages", messages=blocks, system=cached, max_tokens=1)
    counted = post(server, "/v1/messages/count_tokens", messages=turns, system="Be kind.").json()
    assert counted == {"input_tokens": length}
    counted = post(server, "/v1/messages/count_tokens", messages=turns, system="Be kind.", topk=3).json()
    (warning,) = counted.pop("adacd")["warnings"]
    assert counted == {"input_tokens": length} and "`topk`" in warning
    assert length == prompt_of(server, "/api/chat", messages=chat, **limit)
    one = prompt_of(server, "/api/generate", prompt="Hi?", system="Be kind.", **limit)
    assert one == server.chat(messages=chat[:2], max_tokens=1).json()["usage"]["prompt_tokens"]


def test_the_calls_of_tools_in_a_conversation_are_told_in_every_format(server: Site) -> None:
    function = {"name": "f", "arguments": "{}"}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    chat = [QUESTION, call, {"role": "tool", "tool_call_id": "1", "content": "3"}]
    length = server.chat(messages=chat, max_tokens=1).json()["usage"]["prompt_tokens"]
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "3"}]}
    blocks = [QUESTION, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    used = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    limit = {"options": {"num_predict": 1}, "stream": False}
    assert length == prompt_of(server, "/v1/responses", input=[QUESTION, CALL, RESULT], max_output_tokens=1)
    assert length == prompt_of(server, "/v1/messages", messages=blocks, max_tokens=1)
    told = [QUESTION, used, {"role": "tool", "tool_name": "f", "content": "3"}]
    assert length == prompt_of(server, "/api/chat", messages=told, **limit)


def test_messages(server: Site) -> None:
    body = post(server, "/v1/messages", messages=[QUESTION], max_tokens=2).json()
    assert body.pop("id").startswith("msg_")
    head = {"type": "message", "role": "assistant", "model": "letters", "stop_sequence": None}
    content = [{"type": "text", "text": "ab"}]
    assert body == {**head, "content": content, "stop_reason": "max_tokens", "usage": USAGE, "adacd": OWN}
    stopped = {"messages": [QUESTION], "stop_sequences": ["zz", "cd"]}
    whole = post(server, "/v1/messages", **stopped).json()
    assert whole["content"][0]["text"] == "ab"
    last = events(post(server, "/v1/messages", **stopped, stream=True))[-2]["delta"]
    for end in (whole, last):
        assert (end["stop_reason"], end["stop_sequence"]) == ("stop_sequence", "cd")
    whole = post(server, "/v1/messages", messages=[QUESTION], stop_sequences=["zz"]).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("end_turn", None)

    start, *rest = events(post(server, "/v1/messages", messages=[QUESTION], max_tokens=2, stream=True))
    empty = {**head, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 0}}
    assert start["type"] == "message_start" and start["message"].pop("id").startswith("msg_")
    assert start["message"] == empty
    stop = {"stop_reason": "max_tokens", "stop_sequence": None}
    assert rest == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
            for text in "ab"
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "adacd": OWN, "usage": USAGE},
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type"),
        ({"messages": [QUESTION], "system": [{"type": "image"}]}, "system[0].type"),
        ({"messages": [QUESTION], "stop_sequences": "x"}, "stop_sequences"),
        ({"messages": [QUESTION], "stop_sequences": ["x"] * 17}, "stop_sequences"),
        ({"messages": [QUESTION], "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [QUESTION], "system": [{"type": "text", "text": 3}]}, "system[0].text"),
        (
            {
                "system": "x",
                "messages": [
                    {"role": "user", "content": [{"type": "thinking"}, {"type": "text", "text": 3}]}
                ],
            },
            "messages[0].content[1].text",
        ),
        (
            {
                "messages": [
                    QUESTION,
                    {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": 3}]},
                    QUESTION,
                ]
            },
            "messages[1].content[0].input",
        ),
        (
            {"messages": [QUESTION], "output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema",
        ),
    ],
)
def test_what_messages_refuses_by_its_own_names(server: Site, fields: Any, param: str) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        response = post(server, path, **fields)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_what_is_no_object_is_called_that_in_every_format(server: Site) -> None:
    for path in ("/v1/chat/completions", "/v1/messages"):
        error = post(server, path, messages=[QUESTION], max_tokens=1, adacd="x").json()["error"]
        assert (error["param"], error["message"]) == ("adacd", "`adacd` should be an object.")


def test_ollama(server: Site) -> None:
    asked = {
        "messages": [QUESTION],
        "options": {"num_predict": 2, "num_ctx": 4096, "seed": 1, "temperature": 0},
    }
    response = post(server, "/api/chat", **asked)
    assert response.headers["content-type"].startswith("application/x-ndjson")
    told = lines(response)
    assert [(each["message"]["content"], each["done"]) for each in told] == [
        ("a", False),
        ("b", False),
        ("", True),
    ]
    whole = post(server, "/api/chat", **asked, stream=False).json()
    assert whole["message"] == {"role": "assistant", "content": "ab"}
    for last in (told[-1], whole):
        numbers = {name: last[name] for name in ("done_reason", "prompt_eval_count", "eval_count", "adacd")}
        assert numbers == {"done_reason": "length", "prompt_eval_count": 22, "eval_count": 2, "adacd": OWN}
    generated = lines(post(server, "/api/generate", prompt="Hi?", model="letters:latest"))
    assert "".join(each["response"] for each in generated) == ALPHABET
    assert (generated[-1]["done_reason"], generated[0]["model"]) == ("stop", "letters:latest")


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("chat", {"messages": [{**QUESTION, "images": ["x"]}]}, "Images are not supported."),
        ("chat", {"messages": [QUESTION], "format": "xml"}, "`format`"),
        ("chat", {"messages": [QUESTION], "options": {"temperature": 9}}, "`options.temperature`"),
        ("chat", {"messages": [QUESTION], "model": "llama"}, "it serves `letters`"),
        ("generate", {"prompt": "Hi?", "raw": True}, "/v1/completions"),
        ("generate", {"prompt": "Hi?", "context": [1]}, "/api/chat"),
        ("generate", {"prompt": "Hi?", "think": 3}, "`think` should be"),
        ("generate", {"prompt": "Hi?", "format": 3}, "`format` should be"),
        ("generate", {"prompt": "Hi?", "temperature": 9}, "`temperature`"),
        ("generate", {"prompt": "Hi?", "options": {"num_predict": "x"}}, "`options.num_predict`"),
        ("generate", {"prompt": "x" * 9999}, "this server takes at most 300"),
    ],
)
def test_what_ollama_is_refused(server: Site, path: str, fields: Any, message: str) -> None:
    response = post(server, f"/api/{path}", **fields)
    assert response.status_code in (400, 404) and message in response.json()["error"]


def test_whether_to_think_is_an_effort() -> None:
    for given, effort in ((True, "medium"), (False, "none"), ("high", "high")):
        chat = ollama_api.chat_of(OllamaGenerate(prompt="Hi?", think=given))
        assert chat.fields["reasoning_effort"] == effort
    for kind, effort in (("enabled", "medium"), ("disabled", "none"), ("adaptive", None)):
        body = MessagesRequest(messages=[Turn(**QUESTION)], thinking={"type": kind})
        assert messages_api.chat_of(body).fields.get("reasoning_effort") == effort
    body.thinking, body.output_config = {"type": "enabled"}, {"effort": "xhigh"}
    assert messages_api.chat_of(body).fields["reasoning_effort"] == "xhigh"


INPUT = {"input": "Hi?", "max_output_tokens": 1}
ASKED = {"messages": [QUESTION], "max_tokens": 1}
TOLD = {"messages": [QUESTION], "options": {"num_predict": 1}, "stream": False}


def turns(*blocks: Any) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {}, "caller": {"type": "program"}}
    return {
        "messages": [QUESTION, {"role": "assistant", "content": [use]}, {"role": "user", "content": blocks}]
    }


def result(**fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "1", "content": "3", **fields}


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("/v1/responses", {"include": ["reasoning.encrypted_content"]}, ["include"]),
        ("/v1/responses", {"truncation": "auto", "store": True}, ["truncation", "store"]),
        ("/v1/responses", {"text": {"verbosity": "low"}}, ["text.verbosity"]),
        (
            "/v1/responses",
            {"reasoning": {"summary": "auto", "mode": "pro"}},
            ["reasoning.summary", "reasoning.mode"],
        ),
        ("/v1/responses", {"n": 2, "messages": [{"role": "user", "content": "Ho"}]}, ["n", "messages"]),
        (
            "/v1/responses",
            {"max_tool_calls": 3, "moderation": {"model": "m"}},
            ["max_tool_calls", "moderation"],
        ),
        (
            "/v1/responses",
            {"stream_options": {"include_obfuscation": True}},
            ["stream_options.include_obfuscation"],
        ),
        ("/v1/responses", {"input": [{**QUESTION, "phase": "commentary", "id": "m"}]}, ["input[0].phase"]),
        ("/v1/responses", {"input": [QUESTION, {**CALL, "namespace": "x"}, RESULT]}, ["input[1].namespace"]),
        ("/v1/responses", {"tools": [{"type": "function", "name": "f", "strict": True}]}, ["strict"]),
        ("/v1/messages", {"thinking": {"type": "disabled", "budget_tokens": 9}}, ["thinking.budget_tokens"]),
        ("/v1/messages", {"thinking": {"type": "between_tools"}}, ["thinking.type"]),
        ("/v1/messages", {"output_config": {"effort": "low"}}, ["output_config.effort"]),
        ("/v1/messages", {"logprobs": True, "speed": "fast"}, ["speed", "logprobs"]),
        ("/v1/messages", {"stop": "x", "stop_sequences": ["y"]}, ["stop"]),
        (
            "/v1/messages",
            turns(result(is_error=True)),
            ["messages[1].content[0].caller", "messages[2].content[0].is_error"],
        ),
        (
            "/v1/messages",
            {"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]},
            ["tools[0].input_examples"],
        ),
        ("/v1/messages", {"messages": [{**QUESTION, "mood": "sad", "id": "m"}]}, ["messages[0].mood"]),
        (
            "/api/chat",
            {"options": {"num_predict": 1, "mirostat": 2, "typical_p": 0.5}},
            ["options.mirostat", "options.typical_p"],
        ),
        (
            "/api/chat",
            {"options": {"num_predict": 1, "repeat_last_n": 64, "model": "x"}},
            ["options.repeat_last_n", "options.model"],
        ),
        ("/api/chat", {"temperature": 0.5, "options": {"num_predict": 1, "temperature": 0}}, ["temperature"]),
        ("/api/chat", {"messages": [{**QUESTION, "mood": "sad"}]}, ["messages[0].mood"]),
        ("/api/chat", {"prompt": "Hi?", "truncate": True}, ["prompt", "truncate"]),
    ],
)
def test_what_has_no_counterpart_is_named_by_its_path(
    server: Site, path: str, fields: dict[str, Any], named: list[str]
) -> None:
    usual: Any = {"/v1/responses": INPUT, "/v1/messages": ASKED, "/api/chat": TOLD}[path]
    response = post(server, path, **{**usual, **fields})
    assert response.status_code == 200, response.text
    warnings = [text for text in response.json()["adacd"].get("warnings", ()) if "chat template" not in text]
    assert [text.split("`")[1] for text in warnings] == named


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (
            "/v1/responses",
            {"include": [], "truncation": "disabled", "store": False, "text": {"verbosity": "medium"}},
        ),
        (
            "/v1/responses",
            {"reasoning": {"summary": None, "context": "auto"}, "service_tier": "auto", "n": None},
        ),
        (
            "/v1/responses",
            {"prompt_cache_key": "x", "prompt_cache_retention": "24h", "user": "u", "metadata": {}},
        ),
        (
            "/v1/responses",
            {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "context_management": []},
        ),
        (
            "/v1/responses",
            {"stream_options": {"include_obfuscation": False}, "background": False, "top_logprobs": 0},
        ),
        (
            "/v1/messages",
            {"cache_control": {"type": "ephemeral"}, "speed": "standard", "service_tier": "standard_only"},
        ),
        (
            "/v1/messages",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "metadata": {"user_id": "u"}},
        ),
        (
            "/v1/messages",
            {"messages": [{**QUESTION, "content": [{"type": "text", "text": "Hi?", "citations": None}]}]},
        ),
        (
            "/v1/messages",
            {"tools": [{"name": "f", "input_schema": {}, "strict": False, "cache_control": {}}]},
        ),
        (
            "/api/chat",
            {"options": {"num_predict": 1, "num_ctx": 9, "mirostat": 0, "tfs_z": 1.0, "repeat_last_n": -1}},
        ),
        ("/v1/messages", {"n": 1, "logprobs": False, "top_logprobs": 0}),
        ("/api/chat", {"keep_alive": 0, "format": "", "think": None, "shift": False}),
        ("/api/chat", {"messages": [{**QUESTION, "images": [], "tool_calls": None, "thinking": None}]}),
    ],
)
def test_what_asks_for_nothing_is_accepted(server: Site, path: str, fields: dict[str, Any]) -> None:
    usual: Any = {"/v1/responses": INPUT, "/v1/messages": ASKED, "/api/chat": TOLD}[path]
    response = post(server, path, **{**usual, **fields})
    assert response.status_code == 200, response.text
    warnings = response.json()["adacd"].get("warnings", ())
    assert [text for text in warnings if "chat template" not in text] == []


def test_a_trace_has_no_place_in_the_streams_of_other_formats(server: Site) -> None:
    asked = {"messages": [QUESTION], "adacd": {"trace": True}}
    assert post(server, "/api/chat", **asked, stream=False).json()["adacd"]["trace"]
    last = lines(post(server, "/api/chat", **asked))[-1]
    assert last["adacd"]["warnings"] == ["`adacd.trace` is not supported, so it was not used."]
    assert post(server, "/v1/messages", messages=[QUESTION], stream=True, adacd=[]).status_code == 400


def test_earlier_thinking_is_given_to_the_template() -> None:
    thought = {"reasoning_content": "Hm.", "role": "assistant"}
    item = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    answer = {"role": "assistant", "content": "Yes."}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for items, expected in (
        ([item, answer], {**answer, **thought}),
        ([item, CALL], {**thought, "content": "", "tool_calls": [call]}),
        ([item, answer, item, CALL], {**answer, "reasoning_content": "Hm.\nHm.", "tool_calls": [call]}),
    ):
        asked = responses_api.chat_of(ResponsesRequest(input=[QUESTION, *items]))
        assert asked.fields["messages"][1:] == [expected]
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "Yes."}]
    body = MessagesRequest(messages=[Turn(**QUESTION), Turn(role="assistant", content=blocks)])
    assert messages_api.chat_of(body).fields["messages"][1] == {**thought, "content": blocks[1:]}
    chat = OllamaChat(messages=[QUESTION, {**answer, "thinking": "Hm."}])
    assert ollama_api.chat_of(chat).fields["messages"][1] == {**thought, "content": "Yes."}


def test_log_probabilities_in_other_formats(server: Site) -> None:
    told = server.chat(max_tokens=2, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"][
        "content"
    ]
    assert len(told) == 2 and len(told[0]["top_logprobs"]) == 2
    asked = {"input": "Hi?", "max_output_tokens": 2, "top_logprobs": 2}
    whole = post(server, "/v1/responses", **asked, include=["message.output_text.logprobs"]).json()
    assert whole["output"][0]["content"][0]["logprobs"] == told
    sent = events(post(server, "/v1/responses", **asked, stream=True))
    deltas = [each["logprobs"] for each in sent if each["type"].endswith("output_text.delta")]
    assert deltas == [[each] for each in told]
    assert sent[-1]["response"]["output"] == [
        {**whole["output"][0], "id": sent[-1]["response"]["output"][0]["id"]}
    ]
    ask = {"messages": [QUESTION], "logprobs": True, "top_logprobs": 2, "options": {"num_predict": 2}}
    assert post(server, "/api/chat", **ask, stream=False).json()["logprobs"] == told
    said = lines(post(server, "/api/chat", **ask))
    assert [each["logprobs"] for each in said if not each["done"]] == [[each] for each in told]


def test_a_request_that_asks_nothing_finds_the_model_loaded(server: Site) -> None:
    for path, body in (
        ("generate", {}),
        ("generate", {"prompt": "", "keep_alive": 0}),
        ("chat", {"messages": []}),
    ):
        told = post(server, f"/api/{path}", **body).json()
        assert (told["model"], told["done"], told["done_reason"]) == ("letters", True, "load")
        assert post(server, f"/api/{path}", **{**body, "model": "llama"}).status_code == 404


def test_the_models_of_ollama(server: Site) -> None:
    (model,) = server.http.get("/api/tags").json()["models"]
    assert (model["name"], model["model"]) == ("letters", "letters")
    assert server.http.get("/api/version").json().keys() == {"version"}
    assert (
        server.http.post("/api/show", json={"model": "letters"}).json()["model_info"]["adacd.context_length"]
        == 4096
    )
    assert server.http.post("/api/show", json={"name": "other"}).status_code == 404


def test_a_failure_ends_a_stream_in_every_format() -> None:
    slow = Slow()
    asked = {"responses": {"input": "Hi?"}, "messages": {"messages": [QUESTION]}}
    with site(Loaded(slow)) as server:
        for number in range(3):
            slow.fails[number] = LogitsError("Not finite.")
        slow.steps.release(3)
        told = [events(post(server, f"/v1/{path}", stream=True, **body)) for path, body in asked.items()]
        line = lines(post(server, "/api/chat", messages=[QUESTION]))[-1]
    assert told[0][-1]["type"] == "response.failed"
    assert told[0][-1]["response"]["error"] == {"code": "server_error", "message": "Not finite."}
    assert (told[1][-1]["type"], told[1][-1]["error"]["message"]) == ("error", "Not finite.")
    assert line == {"error": "Not finite."}
