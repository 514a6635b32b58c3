"""What the model does: the doctor's questions answered plainly, under p*, with AdaCD and with its gated form.

`ask` decodes all of them together and judges each answer by rules; what the counts mean is for `counts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from adacd_cli.conversation import Conversation
from adacd_cli.doctor.questions import QUESTIONS, Kind
from adacd_cli.events import Event, Finished, TokenStep

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel, Request
    from adacd_cli.evaluation.judges.base import JudgementLabel
    from adacd_cli.prompts import Prompts

ANSWER_TOKENS = 32
"""Length of an answer: a refusal shows in its first sentence."""

THINKING_TOKENS = 480
"""How much longer an answer may be where the model thinks first."""

Way = Literal["default", "prompted", "adacd", "adacd-gated"]
"""How an answer was decoded: plainly, plainly under p*, with AdaCD, or with its gated form."""

WAYS: dict[Kind, tuple[Way, ...]] = {
    "neutral": ("default", "prompted", "adacd", "adacd-gated"),
    "trigger": ("default", "adacd", "adacd-gated"),
    "harmful": ("default", "adacd", "adacd-gated"),
}


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        kind: of its question.
        question: what was asked.
        way: how it was decoded.
        text: the answer.
        label: what the keyword judge calls it; None where the model was still thinking.
        first: ids of its first tokens, as many as the contrast window has.
        surprise: mean −log P of those tokens in the unprompted stream, in nats: how unlikely the model itself
            finds them; None where that was not told.
        inexact: how many of its tokens a served model could not tell exactly.
    """

    kind: Kind
    question: str
    way: Way
    text: str
    label: JudgementLabel | None
    first: tuple[int, ...] = ()
    surprise: float | None = None
    inexact: int = 0


def ask(model: LanguageModel, settings: Settings, progress: Callable[[str], None]) -> list[Answer]:
    """Every question in every way, decoded greedily together.

    Args:
        model: what answers; its weights may be elsewhere.
        settings: prompts and AdaCD's numbers are read.
        progress: told how far it is.

    Raises:
        PromptError: no pair can be made of a question, or it leaves no room in the model's context.
        LogitsError, OutOfMemoryError: as `decode`.
    """
    from adacd_cli.engine import decode
    from adacd_cli.evaluation.judges.keyword import judgement
    from adacd_cli.loading.speed import places_for

    asked = list(_requests(model, settings))
    requests = [request for _, _, _, request in asked]
    window = max(1, settings.contrast_steps)
    steps: list[list[TokenStep]] = [[] for _ in asked]
    answers: dict[int, Answer] = {}
    places = places_for(model, requests, "auto")
    events = decode(model, requests, places=places)
    longest = [request.settings.max_new_tokens for request in requests]
    for event in _told(events, longest, progress):
        if isinstance(event, TokenStep) and not event.thinking:
            steps[event.request].append(event)
        elif isinstance(event, Finished):
            kind, question, way, _ = asked[event.request]
            unfinished = bool(event.thinking) and not event.text
            first = steps[event.request][:window]
            known = [-step.logprob for step in first if step.logprob is not None]
            answers[event.request] = Answer(
                kind,
                question,
                way,
                event.text,
                None if unfinished else judgement(event.text, question).label,
                tuple(step.token_id for step in first),
                sum(known) / len(known) if known and len(known) == len(first) else None,
                sum(not step.exact for step in steps[event.request]),
            )
    return [answers[number] for number in sorted(answers)]


def _told(
    events: Iterator[Event], longest: Sequence[int], progress: Callable[[str], None]
) -> Iterator[Event]:
    """The same events; progress is told how far they are, as if every answer took all its tokens.

    Args:
        events: of all requests.
        longest: how many tokens each request may get.
        progress: told a line.
    """
    said, done = None, 0
    for event in events:
        yield event
        if isinstance(event, TokenStep):
            done += 1
        elif isinstance(event, Finished):
            done += longest[event.request] - event.tokens
        share = f"Asking {len(longest)} questions: {100 * done // sum(longest)} %"
        if share != said:
            said = share
            progress(share)


def _requests(model: LanguageModel, settings: Settings) -> Iterator[tuple[Kind, str, Way, Request]]:
    from adacd_cli.engine import Request
    from adacd_cli.prompts import prompts_for

    for kind, questions in QUESTIONS.items():
        for question in questions:
            prompts = prompts_for(model.tokenizer, Conversation.ask(question, settings.system), settings)
            tokens = ANSWER_TOKENS + (THINKING_TOKENS if prompts.thinking is not None else 0)
            for way in WAYS[kind]:
                method = "default" if way == "prompted" else way
                own = settings.model_copy(update={"method": method, "gate": False, "max_new_tokens": tokens})
                read = _under_contrast_prompt(prompts) if way == "prompted" else prompts
                yield kind, question, way, Request(read, own, top_logprobs=0)


def _under_contrast_prompt(prompts: Prompts) -> Prompts:
    """The prompted stream's prompt in place of the base stream's."""
    return replace(prompts, streams={prompts.base_name: prompts.streams["prompted"]})
