"""Conversations become requests, and requests are decoded side by side in the order that costs least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from adacd_cli.errors import UsageError
from adacd_cli.events import Event

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.conversation import Conversation
    from adacd_cli.engine import LanguageModel, Request
    from adacd_cli.prompts import Prompts


def never(request: int) -> bool:
    """Cancels no request."""
    return False


def requests_for(
    model: LanguageModel, conversations: Sequence[Conversation], settings: Settings
) -> list[Request]:
    """The requests that answer conversations under the settings.

    Where a seed is given each draws differently, and its Started tells the seed that repeats it alone.

    Raises:
        PromptError: no prompts can be made of a conversation.
        ModelError: the model's chat template is broken.
    """
    from adacd_cli.engine import Request
    from adacd_cli.prompts import prompts_for

    return [
        Request(
            prompts_for(model.tokenizer, conversation, settings),
            settings,
            None if settings.seed is None else (settings.seed + number) % 2**63,
        )
        for number, conversation in enumerate(conversations)
    ]


def run(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    batch_size: int | Literal["auto"] = "auto",
    candidates: int = 0,
    cancelled: Callable[[int], bool] = never,
) -> Iterator[Event]:
    """Decodes requests side by side; `request` in the events is a request's place in the list.

    Args:
        model: the model, ready to decode.
        requests: any number; none gives no events.
        batch_size: how many run at once; "auto" is as many as memory has room for.
        candidates: how many of the most probable tokens each step reports.
        cancelled: asked before each step with a request's place; True ends it as CANCELLED.

    Raises:
        UsageError: `batch_size` or `candidates` is no such number.
        PromptError: a prompt leaves no room in the model's context; before anything is decoded.
        ModelError, LogitsError, OutOfMemoryError, KeyboardInterrupt: as `decode`.
    """
    from adacd_cli.engine import check_room, decode
    from adacd_cli.loading.speed import places_for

    if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
        raise UsageError(f'`batch_size` is at least 1, or "auto"; got {batch_size!r}.')
    if candidates < 0:
        raise UsageError(f"`candidates` is at least 0; got {candidates}.")
    if not requests:
        return iter(())
    for number, request in enumerate(requests, 1):  # in the order given, before any takes its time
        which = "The prompt" if len(requests) == 1 else f"Prompt {number}"
        check_room(model, request.prompts, request.settings, which)
    places = places_for(model, requests, 1 if len(requests) == 1 else batch_size)
    order = _by_length([request.prompts for request in requests], places.limit or 1)
    events = decode(
        model,
        [requests[number] for number in order],
        places=places,
        candidates=candidates,
        cancelled=lambda place: cancelled(order[place]),
    )
    return (replace(event, request=order[event.request]) for event in events)


def _by_length(prompts: Sequence[Prompts], at_once: int) -> list[int]:
    """The prompts' numbers, portions of them by length: what runs side by side is padded to the longest.

    Only portions, because who writes the answers in the prompts' order waits for the first.
    """
    size = 8 * at_once if at_once > 1 else 1
    numbers = range(len(prompts))
    return [
        number
        for start in range(0, len(prompts), size)
        for number in sorted(numbers[start : start + size], key=lambda each: len(prompts[each].base.ids))
    ]
