"""decode: a batch of requests in, their events out. What is done with the events is for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS, spoken
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.places import Places
from adacd_cli.engine.prefixes import Prefixes
from adacd_cli.engine.protocol import Cancelled, never
from adacd_cli.engine.row import Request
from adacd_cli.errors import PromptError
from adacd_cli.events import Event
from adacd_cli.prompts.pair import PromptPair

if TYPE_CHECKING:
    from adacd_cli.config import Settings


def decode(
    model: LanguageModel,
    requests: Sequence[Request],
    settings: Settings,
    *,
    places: Places | None = None,
    candidates: int = 0,
    known: Prefixes | None = None,
    cancelled: Cancelled = never,
) -> Iterator[Event]:
    """Decodes a batch of requests.

    Args:
        model: the model, ready to decode.
        requests: one or more; their prompts may differ in length, and their methods too.
        settings: the method and its numbers, lengths, sampling and stop strings of those that bring none.
        places: how many run at once; as one ends, the next takes its place. None for all of them.
        candidates: how many of the most probable tokens each step reports; 0 for none.
        known: beginnings of prompts that need not be fed again, and where new ones are left.
        cancelled: asked before each step with a request's index; True ends it as CANCELLED.

    Yields:
        Started of every request, their TokenSteps as they come, and Finished of each as it ends.

    Raises:
        ModelError: what the method needs besides the model is not loaded; `loading.load_extras` does that.
        PromptError: a prompt leaves no room in the model's context.
        LogitsError: a step's logits are NaN or infinite.
        OutOfMemoryError: memory is not enough for a single request; for several, fewer are run at once.
        ServerError: a model at a server, and that failed or went away.
        KeyboardInterrupt: during a forward, after Finished (CANCELLED) of whatever was not finished.
    """
    decoder = model.decoder(places=places, candidates=candidates, known=known, cancelled=cancelled)
    started = [decoder.submit(request, settings) for request in requests]
    for number, request in enumerate(requests, 1):
        which = "The prompt" if len(requests) == 1 else f"Prompt {number}"
        check_room(model, request.pair, request.settings or settings, which)
    yield from started
    try:
        while decoder.busy:
            yield from decoder.step()
    except KeyboardInterrupt:
        # a consumer sees every request end, also when a forward was interrupted
        yield from decoder.close()
        raise


def check_room(model: LanguageModel, pair: PromptPair, settings: Settings, which: str = "The prompt") -> None:
    """Refuses a prompt that leaves no room for an answer; `decode` does so for its batch.

    Raises:
        PromptError: the prompt is empty or as long as the model's context; the message calls it `which`.
    """
    method = METHODS[settings.effective_method]
    contrasts, second = method.window(settings) > 0, method.second_stream(settings)
    limit = model.context_for(method, settings)
    unprompted, prompted = len(pair.unprompted_ids), len(pair.prompted_ids)
    longest = max(unprompted, prompted) if contrasts else unprompted
    if unprompted == 0:
        raise PromptError(f"{which} is empty: it has no token.", "Give a prompt with some text in it.")
    if limit is not None and longest >= limit:
        extra = ""
        if second is not None and longest > unprompted:
            extra = f" with the {spoken(second.prompt)} ({unprompted} without)"
        raise PromptError(
            f"{which} is {longest} tokens long{extra}, and the model's context is {limit}, the answer "
            "included.",
            "Shorten the prompt, or use a model with a longer context.",
        )
