"""What a request says: its conversation, and the prompts of both streams, within what the server takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import AdacdError, PromptError
from adacd_cli.server.asked import Limits
from adacd_cli.server.errors import of, refused
from adacd_cli.server.schema import ChatRequest

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel
    from adacd_cli.prompts import Prompts

_SLACK = 4
"""How many times longer a prompt is than its tokens can be before it is refused without being encoded."""


def conversation_of(asked: ChatRequest, system: str | None) -> Conversation:
    """The conversation.

    Args:
        asked: the request.
        system: the server's own system message, for conversations that have none.

    Raises:
        ApiError: 400, where system messages stand elsewhere than at the beginning, or nothing is asked.
    """
    systems: list[str] = []
    turns: list[Message] = []
    for place, message in enumerate(asked.messages):
        if message.role in ("user", "assistant"):
            turns.append(Message(message.role, message.text))
        elif turns:
            raise refused(
                f"Message {place + 1} has the role {message.role}, which stands only at the beginning.",
                f"messages[{place}].role",
            )
        else:
            systems.append(message.text)
    if not turns or turns[-1].role != "user":
        raise refused(
            "The last message is not the user's, so there is nothing to answer; an answer that has begun "
            "cannot be gone on with.",
            "messages",
        )
    joined = "\n\n".join(text for text in systems if text)
    return Conversation(tuple(turns), joined if systems else system)


def check_size(
    model: LanguageModel,
    texts: Sequence[str],
    limits: Limits,
    longest: int,
    param: str,
    own: Mapping[str, str],
) -> None:
    """Refuses, before they are encoded, prompts that are too long whatever their tokens are.

    Args:
        model: what will read them.
        texts: all that was said; none of them takes no token.
        limits: what a request may take.
        longest: characters of the vocabulary's longest token.
        param: the field that holds them.
        own: contrast prompts that the request brings, by their fields.

    Raises:
        ApiError: 400.
    """
    most = min((each for each in (limits.prompt_tokens, model.context_length) if each), default=None)
    if most is None:
        return
    for field, said in {param: texts, **{field: [text] for field, text in own.items()}}.items():
        if len(said) > most or sum(map(len, said)) > most * longest * _SLACK:
            told = f"The prompt is longer than {most} tokens."
            raise refused(told, field, "context_length_exceeded")


def checked(
    model: LanguageModel,
    make: Callable[[], Prompts],
    settings: Settings,
    limits: Limits,
    param: str,
    *,
    own: bool,
) -> Prompts:
    """The prompts of both streams, which leave room for an answer.

    Args:
        model: what will read them.
        make: makes them.
        settings: the request's.
        limits: what a request may take.
        param: the field that holds the prompt.
        own: whether the contrast prompt is the request's own, and so counts within the limits.

    Raises:
        ApiError: no prompts can be made of it, or they are too long.
    """
    from adacd_cli.engine import check_room

    try:
        prompts = make()
    except AdacdError as error:
        raise of(error, param) from error
    length, most, how = len(prompts.base.ids), limits.prompt_tokens, ""
    if own and prompts.longest > length:
        length, how = prompts.longest, " with its contrast prompt"
    try:
        if most is not None and length > most:
            raise PromptError(f"The prompt is {length} tokens long{how}, and this server takes {most}.")
        check_room(model, prompts, settings)
    except AdacdError as error:
        raise refused(error.message, param, "context_length_exceeded") from error
    return prompts
