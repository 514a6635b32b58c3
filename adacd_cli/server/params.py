"""What a request asks for: its parameters over the server's own settings, and its conversation.

Everything is checked before any work is done, and every refusal names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adacd_cli.config import SETTINGS, Settings, Source, change_all
from adacd_cli.config.methods import METHODS
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ConfigurationError
from adacd_cli.server.errors import ApiError, api_error, refused, unknown_field
from adacd_cli.server.schema import (
    CHOSEN_AT_START,
    REQUEST_SETTINGS,
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    Own,
)

_ROOT_NAMES = {
    name: name
    for name in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "stream", "logprobs")
} | {"max_new_tokens": "max_tokens"}
"""The fields at the root of a request, by what they may be called here."""


@dataclass(frozen=True)
class Params:
    """What a request asks for besides its prompt.

    Attributes:
        settings: the method and its numbers, lengths, sampling and stop strings.
        trace: whether every token's numbers are reported.
        candidates: how many of the most probable tokens to report at each step.
        top_logprobs: as `engine.Request` takes it.
        stream: whether the answer is sent as it comes.
        usage: whether a stream ends with the numbers of tokens.
        contrast_prompts: the contrast prompts of the request's own, by the fields that hold them.
        warnings: the fields that are not used, a sentence each.
    """

    settings: Settings
    trace: bool = False
    candidates: int = 0
    top_logprobs: int | None = None
    stream: bool = False
    usage: bool = False
    contrast_prompts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_params(body: CommonRequest, base: Settings, max_answer_tokens: int | None = None) -> Params:
    """The parameters over the server's own settings; raises ApiError, 400, with the field.

    `max_answer_tokens` is the longest answer that may be asked for; None for any.
    """
    values = body.model_dump(include={"temperature", "top_p", "top_k"}, exclude_none=True)
    if body.seed is not None:
        values["seed"] = body.seed % 2**63  # OpenAI's may be negative
    if body.stop is not None:
        values["stop"] = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
    values["max_new_tokens"] = _max_tokens(body, base, max_answer_tokens)
    own = body.adacd or Own()
    given = own.model_extra or {}
    if own.candidates and not own.trace:
        raise refused("`adacd.candidates` needs `adacd.trace`.", "adacd.candidates")
    settings = _apply(base.model_copy(update=values), given)
    options = body.stream_options
    if options is not None and not body.stream:
        raise refused("`stream_options` needs `stream`.", "stream_options")
    method = METHODS[settings.effective_method]
    used = (*method.settings, method.window_setting, "method", "gate", "thinking")
    return Params(
        settings=settings,
        trace=own.trace,
        candidates=own.candidates,
        top_logprobs=_top_logprobs(body),
        stream=bool(body.stream),
        usage=bool(options is not None and options.include_usage),
        contrast_prompts={f"adacd.{name}": text for name, text in given.items() if name.endswith("_prompt")},
        warnings=tuple(
            f"Method {method.name} does not use `adacd.{name}`." for name in given if name not in used
        ),
    )


def _max_tokens(body: CommonRequest, base: Settings, most: int | None) -> int:
    names = ("max_tokens", "max_completion_tokens")
    given = {name: value for name in names if (value := getattr(body, name, None)) is not None}
    if len(set(given.values())) > 1:
        raise refused("`max_tokens` and `max_completion_tokens` differ; give one of them.", names[1])
    for name, value in given.items():
        if most is not None and value > most:
            raise refused(f"`{name}` is at most {most} on this server; got {value}.", name)
        return int(value)
    return base.max_new_tokens if most is None else min(base.max_new_tokens, most)


def _top_logprobs(body: CommonRequest) -> int | None:
    if isinstance(body, CompletionRequest):
        return body.logprobs
    assert isinstance(body, ChatRequest)
    if body.top_logprobs is not None and not body.logprobs:
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
    if name in _ROOT_NAMES:
        message = f"`{_ROOT_NAMES[name]}` belongs at the root of the request, not in `adacd`."
        return refused(message, field, "unknown_field")
    aliases = {alias: known for known in REQUEST_SETTINGS for alias in SETTINGS[known].aliases}
    return unknown_field(field, (*REQUEST_SETTINGS, *Own.model_fields), aliases.get(name))


def conversation_of(body: ChatRequest, system: str | None) -> Conversation:
    """The conversation; `system` is the server's own system message, for conversations that have none.

    Raises:
        ApiError: 400, where a system message is not at the beginning, or the last message is not the user's.
    """
    systems: list[str] = []
    turns: list[Message] = []
    for index, message in enumerate(body.messages):
        if message.role in ("user", "assistant"):
            turns.append(Message(message.role, message.text))
        elif turns:
            raise refused(
                f"Message {index + 1} has the role {message.role}, which is allowed only at the beginning.",
                f"messages[{index}].role",
            )
        else:
            systems.append(message.text)
    if not turns or turns[-1].role != "user":
        raise refused(
            "The last message must be the user's; an answer that has begun cannot be continued.", "messages"
        )
    joined = "\n\n".join(text for text in systems if text)
    return Conversation(tuple(turns), joined if systems else system)
