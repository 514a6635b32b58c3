"""What one answer is asked with, and the one place that refuses a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adacd_cli.config.methods import METHODS, spoken
from adacd_cli.errors import ConfigurationError, PromptError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine.backend import Capabilities
    from adacd_cli.engine.model import LanguageModel
    from adacd_cli.prompts.prompts import Prompts


@dataclass(frozen=True)
class Request:
    """What one answer is asked with.

    Attributes:
        prompts: what each stream of the method reads.
        settings: the method and its numbers, lengths, sampling and stop strings.
        seed: the sampling seed; None takes `settings.seed`, and without that a fresh one, told in Started.
        candidates: how many of the most probable tokens of either stream each step reports.
        top_logprobs: how many of the most probable tokens of the base stream each step reports, besides the
            log-probability of its own; None for neither.
    """

    prompts: Prompts
    settings: Settings
    seed: int | None = None
    candidates: int = 0
    top_logprobs: int | None = None


def validate(
    request: Request, model: LanguageModel, capabilities: Capabilities, which: str = "The prompt"
) -> None:
    """Refuses a request that cannot be answered, before anything is decoded.

    Args:
        request: what is asked.
        model: what answers.
        capabilities: of the backend that it is asked of.
        which: what the prompt is called in the message.

    Raises:
        PromptError: a prompt is empty, or leaves no room for an answer in the model's context.
        ConfigurationError: the method needs logits or weights that the backend cannot give.
    """
    settings, prompts = request.settings, request.prompts
    method = METHODS[settings.effective_method]
    model.check_method(method)
    if not (capabilities.full_logits or method.sparse):
        raise ConfigurationError(f"Method {method.name} needs every token's logit, which is not told here.")
    base = len(prompts.base.ids)
    if base == 0:
        raise PromptError(f"{which} is empty: it has no token.", "Give a prompt with some text in it.")
    specs = method.streams_for(settings)
    others = [spec for spec in specs[1:] if method.steps(spec, settings) > 0]
    longest, spec = base, specs[0]
    for other in others:
        if (length := len(prompts.streams[other.name].ids)) > longest:
            longest, spec = length, other
    limit = model.context_for(method, settings)
    if limit is not None and longest >= limit:
        extra = f" with the {spoken(spec.prompt)} ({base} without)" if longest > base else ""
        raise PromptError(
            f"{which} is {longest} tokens long{extra}, and the model's context is {limit}, the answer "
            "included.",
            "Shorten the prompt, or use a model with a longer context.",
        )
