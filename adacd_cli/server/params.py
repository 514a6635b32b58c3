"""What a request asks for: its parameters over the server's own settings, and its conversation. Everything is
checked before any work is done, and every refusal names the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from adacd_cli.config import CONTROLS, SETTINGS, Settings, Source, change_all
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ConfigurationError
from adacd_cli.server.errors import ApiError, api_error, no_field, refused, shown
from adacd_cli.server.fields import NEUTRAL, unknown_fields
from adacd_cli.server.schema import (
    CHOSEN_AT_START,
    REQUEST_SETTINGS,
    ChatMessage,
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    Own,
    StreamOptions,
    ToolCall,
)
from adacd_cli.server.translation import Translation

_SYSTEM = ("system", "developer")
_THINKING = ("enable_thinking", "thinking")
_ANY_LENGTH = 2**31 - 1
_MAX_WARNINGS = 20
_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}  # which templates know in their place
_AT_ROOT = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "logprobs", *CONTROLS)


@dataclass(frozen=True)
class Params:
    """What a request asks for besides its prompt."""

    settings: Settings  # the method and its numbers, lengths, sampling and stop strings
    trace: bool = False
    candidates: int = 0  # how many of the most probable tokens to report at each step
    top_logprobs: int | None = None  # as `engine.Request` takes it
    stream: bool = False
    usage: bool = False  # whether a stream ends with the numbers of tokens
    continuous_usage: bool = False  # and each chunk has them
    contrast_prompts: Mapping[str, str] = field(default_factory=dict)  # of the request's own, by their fields
    warnings: tuple[str, ...] = ()  # the fields that are not used, a sentence each
    json_schema: tuple[Mapping[str, Any], str] | None = None  # what answers are held to, and the field of it


def read_params(
    body: CommonRequest,
    base: Settings,
    max_answer_tokens: int | None = None,
    origin: Translation | None = None,
) -> Params:
    """The parameters over the server's own settings; raises ApiError, 400, with the field. `max_answer_tokens` is
    the longest answer that may be asked for; None for any. `origin`: the request of another format that the body
    is."""
    plain = {"temperature", "top_p", *CONTROLS} - {"logit_bias", "stop_token_ids"}
    values = body.model_dump(include=plain, exclude_none=True)
    if body.top_k is not None:
        values["top_k"] = max(0, body.top_k)
    if body.logit_bias is not None:
        values["logit_bias"] = tuple(f"{token}:{bias}" for token, bias in body.logit_bias.items())
    if body.stop_token_ids is not None:
        values["stop_token_ids"] = tuple(body.stop_token_ids)
    if body.seed is not None:
        values["seed"] = body.seed % 2**63  # OpenAI's may be negative
    if body.stop is not None:
        values["stop"] = tuple(filter(None, [body.stop] if isinstance(body.stop, str) else body.stop))
    values["max_new_tokens"] = _max_tokens(body, base, max_answer_tokens)
    if isinstance(body, ChatRequest) and (thinking := _thinking(body)) is not None:
        values["thinking"] = thinking
    own = body.adacd or Own()
    given, options = own.model_extra or {}, body.stream_options or StreamOptions()
    if own.candidates and not own.trace:
        raise refused("`adacd.candidates` needs `adacd.trace`.", "adacd.candidates")
    settings = _apply(base.model_copy(update=values), given)
    method = METHODS[settings.effective_method]
    used = (*method.settings, method.window_setting, "method", "gate", "thinking")
    return Params(
        settings=settings,
        trace=own.trace,
        candidates=own.candidates,
        top_logprobs=_top_logprobs(body),
        stream=bool(body.stream),
        usage=bool(options.include_usage),
        continuous_usage=bool(options.include_usage and options.continuous_usage_stats),
        contrast_prompts={f"adacd.{name}": text for name, text in given.items() if name.endswith("_prompt")},
        warnings=(
            *(f"Method {method.name} does not use `adacd.{name}`." for name in given if name not in used),
            *_warnings(body, origin),
        ),
        json_schema=_json_schema(body),
    )


def _json_schema(body: CommonRequest) -> tuple[Mapping[str, Any], str] | None:
    """The schema of the answer, and the field that holds it; None where any text will do."""
    nested = {"response_format": body.response_format, "structured_outputs": body.structured_outputs}
    found = {name: each.wanted for name, each in nested.items() if each is not None}
    found |= {"guided_json": body.guided_json, "json_schema": body.json_schema}
    given = [(schema, name) for name, schema in found.items() if schema is not None]
    if len(given) > 1:
        raise refused(f"`{given[1][1]}` and `{given[0][1]}` cannot be used together.", given[1][1])
    return given[0] if given else None


def _warnings(body: CommonRequest, origin: Translation | None) -> Iterator[str]:
    unused: Mapping[str, Any] = origin.unused if origin else {}
    renamed = origin.renamed if origin else str
    unknown, known = unknown_fields(body, unused), [*type(body).model_fields, *ChatMessage.model_fields]
    for name, path in list(unknown.items())[:_MAX_WARNINGS]:
        sentence = f"`{shown(path)}` is not supported, so it was not used."
        if not (path in unused or name in NEUTRAL):
            sentence = no_field(path, known, end=", so it was not used")
        yield sentence if path in unused else renamed(sentence)
    if len(unknown) > _MAX_WARNINGS:
        yield f"{len(unknown) - _MAX_WARNINGS} more fields do not exist."
    if len({body.max_tokens, body.max_completion_tokens} - {None}) > 1:
        yield renamed("`max_completion_tokens` is used in place of `max_tokens`.")
    if isinstance(body, ChatRequest):
        if all(message.role in _SYSTEM for message in body.messages):
            yield "There is no user message; the last system message stands as one."
        functions = [tool["function"] for tool in body.tools or () if _is_function(tool)]
        if len(functions) < len(body.tools or ()):
            yield renamed("`tools` other than functions are not used.")
        if any(function.get("strict") for function in functions):
            yield renamed("`strict` of `tools` is not supported: no call is held to its schema.")


def _thinking(body: ChatRequest) -> bool | None:
    """Whether to think, as the template's variables or else the effort say; None where neither does."""
    for name in _THINKING:
        value = (body.chat_template_kwargs or {}).get(name)
        if isinstance(value, bool):
            return value
        if value is not None:
            raise refused(f"`{name}` is true or false.", f"chat_template_kwargs.{name}")
    return None if body.reasoning_effort is None else body.reasoning_effort != "none"


def _is_function(tool: Mapping[str, Any]) -> bool:
    return tool.get("type", "function") == "function" and isinstance(tool.get("function"), Mapping)


def _max_tokens(body: CommonRequest, base: Settings, most: int | None) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = getattr(body, name, None)
        if value is not None and most is not None and value > most:
            raise refused(f"`{name}` is at most {most} on this server; got {value}.", name)
        if value is not None:
            return int(value) if value >= 0 else most or _ANY_LENGTH
    return base.max_new_tokens if most is None else min(base.max_new_tokens, most)


def _top_logprobs(body: CommonRequest) -> int | None:
    if isinstance(body, CompletionRequest):
        return body.logprobs
    assert isinstance(body, ChatRequest)
    if body.top_logprobs and not body.logprobs:
        raise refused("`top_logprobs` needs `logprobs`.", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _apply(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings with those of the object `adacd`, in the order of their declaration."""
    for name in given:
        if name not in REQUEST_SETTINGS:
            raise _not_allowed(name)
    for name in [each for each in SETTINGS if each in given]:
        try:
            settings = change_all(settings, {name: given[name]}, Source("flag", "the request"))
        except ConfigurationError as error:
            raise api_error(error, f"adacd.{name}") from None
    method = METHODS[settings.effective_method]
    if method.resource and not method.stand_in and getattr(settings, method.resource) is None:
        flag = SETTINGS[method.resource].flag
        raise refused(
            f"Method {method.name} needs a {method.resource}, and the server was started without {flag}.",
            "adacd.method",
        )
    return settings


def _not_allowed(name: str) -> ApiError:
    field = f"adacd.{name}"
    if name in CHOSEN_AT_START:
        return refused(f"`{name}` is chosen when the server is started, not by a request.", field)
    if (root := {"max_new_tokens": "max_tokens"}.get(name, name)) in _AT_ROOT:
        message = f"`{root}` belongs at the root of the request, not in `adacd`."
        return refused(message, field, "unknown_field")
    aliases = {alias: known for known in REQUEST_SETTINGS for alias in SETTINGS[known].aliases}
    message = no_field(field, (*REQUEST_SETTINGS, *Own.model_fields), aliases.get(name))
    return refused(message, field[:200], "unknown_field")


def conversation_of(body: ChatRequest, system: str | None) -> Conversation:
    """The conversation; `system` is the server's own system message, for conversations that have none. Raises
    ApiError, 400, where there is nothing to answer, or nothing to go on with."""
    systems: list[str] = []
    turns: list[Message] = []
    for index, message in enumerate(body.messages):
        if message.content is None and message.role in (*_SYSTEM, "user"):
            path = f"messages[{index}].content"
            raise refused(f"`{path}` may be null in an assistant's message only.", path)
        if message.role not in _SYSTEM:
            turns.append(_turn(message))
        elif turns:
            turns.append(Message("system", message.text))
        else:
            systems.append(message.text)
    if not turns:
        turns.append(Message("user", systems.pop()))
    if all(turn.role != "user" for turn in turns):
        raise refused("There is no user message, so there is nothing to answer.", "messages")
    _check_end(body)
    joined = "\n\n".join(text for text in systems if text)
    return Conversation(tuple(turns), joined if systems else system, _variables(body))


def _turn(message: ChatMessage) -> Message:
    """A message as chat templates read it."""
    thought = message.reasoning if isinstance(message.reasoning, str) else None
    extra: dict[str, Any] = {
        "name": message.name,
        "reasoning_content": message.reasoning_content or thought,
        "tool_calls": [_call(each) for each in message.calls] or None,
        "tool_call_id": message.tool_call_id,
    }
    role: Any = "tool" if message.role == "function" else message.role
    kept = {name: value for name, value in extra.items() if value is not None}
    return Message(role, message.text, kept)


def _call(call: ToolCall) -> dict[str, Any]:
    """A call with its arguments as an object, which is what templates write."""
    arguments = call.function.arguments or {}
    if isinstance(arguments, str):
        try:
            arguments = from_json(arguments)  # which bounds how deep it nests
        except ValueError:  # a model wrote it
            arguments = {"arguments": arguments}
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _check_end(body: ChatRequest) -> None:
    """Refuses what the fields say of the last message where it is not so."""
    last, goes_on, new = body.messages[-1], body.continue_final_message, body.add_generation_prompt
    if last.role == "assistant":
        if last.calls:
            raise refused("The last message calls a tool; send its result after it.", "messages")
        if goes_on is False or (new and not goes_on):
            message = "An assistant's last message is continued; end with a user message to have a new one."
            raise refused(message, "add_generation_prompt" if new else "continue_final_message")
    elif goes_on:
        raise refused("Only an assistant's message can be continued.", "continue_final_message")
    elif new is False:
        raise refused("An answer needs the generation prompt.", "add_generation_prompt")
    if goes_on and new:
        raise refused("A message that is continued has no generation prompt.", "add_generation_prompt")


def _variables(body: ChatRequest) -> dict[str, Any]:
    """What the chat template gets besides the messages."""
    variables = {
        name: value for name, value in (body.chat_template_kwargs or {}).items() if name not in _THINKING
    }
    if body.reasoning_effort not in (None, "none"):
        variables.setdefault("reasoning_effort", _EFFORTS.get(body.reasoning_effort, body.reasoning_effort))
    tools = [tool for tool in body.tools or () if _is_function(tool)]
    tools += [{"type": "function", "function": each} for each in body.functions or ()]
    return variables | ({"tools": tools} if tools else {})
