"""The prompt of a request: its conversation, and the prompts of all streams within the server's limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import AdacdError
from adacd_cli.server.errors import api_error, refused
from adacd_cli.server.params import Params
from adacd_cli.server.schema import ChatRequest
from adacd_cli.server.state import ServerState

if TYPE_CHECKING:
    from adacd_cli.prompts import Prompts

_SLACK = 4
"""A prompt with so many times more characters than its tokens could have is refused without being encoded."""


def conversation_of(body: ChatRequest, system: str | None) -> Conversation:
    """The conversation.

    Args:
        body: the request.
        system: the server's own system message, for conversations that have none.

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


def check_size(state: ServerState, texts: Sequence[str], param: str, params: Params) -> None:
    """Refuses, before they are encoded, prompts that are too long whatever their tokens are.

    Args:
        state: the server's, with its model.
        texts: the texts of the prompt; each takes at least a token.
        param: the field that holds them.
        params: the request's, with its own contrast prompts.

    Raises:
        ApiError: 400.
    """
    assert state.model is not None
    bounds = [each for each in (state.max_prompt_tokens, state.model.context_length) if each]
    if not bounds:
        return
    most = min(bounds)
    fields = {param: texts, **{name: [text] for name, text in params.contrast_prompts.items()}}
    for name, parts in fields.items():
        if len(parts) > most or sum(map(len, parts)) > most * state.longest_token * _SLACK:
            raise refused(f"The prompt is longer than {most} tokens.", name, "context_length_exceeded")


def render_within_limits(
    state: ServerState, render: Callable[[], Prompts], param: str, params: Params
) -> Prompts:
    """The prompts of all streams.

    Args:
        state: the server's, with its limits.
        render: makes them.
        param: the field that holds the prompt.
        params: the request's; a contrast prompt of its own counts within the limits.

    Raises:
        ApiError: 400, no prompts can be made of it, or they are too long for this server.
    """
    try:
        prompts = render()
    except AdacdError as error:
        raise api_error(error, param) from error
    length, most, how = len(prompts.base.ids), state.max_prompt_tokens, ""
    if params.contrast_prompts and prompts.longest > length:
        length, how = prompts.longest, " with its contrast prompt"
    if most is not None and length > most:
        message = f"The prompt is {length} tokens long{how}; this server takes at most {most}."
        raise refused(message, param, "context_length_exceeded")
    return prompts
