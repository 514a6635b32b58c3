"""One request while it is decoded: what was said so far, where it stands, and the events it gives."""

from __future__ import annotations

import secrets
import time
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import torch

from adacd_cli.config.methods import METHODS, SecondStream
from adacd_cli.engine.detokenize import Detokenizer, decode_ids
from adacd_cli.engine.memory import peak_memory_bytes
from adacd_cli.engine.model import LanguageModel
from adacd_cli.engine.sampling import draw_noise, make_generator
from adacd_cli.engine.step import Report, RowOutcome
from adacd_cli.errors import LogitsError
from adacd_cli.events import Candidate, Decision, Finished, FinishReason, Started, TokenLogprob, TokenStep
from adacd_cli.prompts.prompts import Prompts

if TYPE_CHECKING:
    from adacd_cli.config import Settings

_CLOSING_TAG_TOKENS = 16
"""How many of the last tokens are searched for the closing tag of the thinking."""


@dataclass(frozen=True)
class Request:
    """What one answer is asked with.

    Attributes:
        prompts: the prompts of the streams of the settings' method.
        settings: the method, its numbers, lengths and sampling.
        seed: the sampling seed; None takes `settings.seed`, and without that a fresh one, told in Started.
        candidates: how many of the most probable tokens of either stream each step reports; None takes what
            is given with the batch.
        top_logprobs: how many of the most probable tokens of the unprompted stream each step reports, besides
            the log-probability of its own; None for neither.
    """

    prompts: Prompts
    settings: Settings
    seed: int | None = None
    candidates: int | None = None
    top_logprobs: int | None = None


class Phase(Enum):
    """Where a request stands in its answer."""

    UNDECIDED = auto()  # the model may or may not begin with a thinking tag
    THINKING = auto()
    ANSWERING = auto()


class Row:
    """The state of one request; it knows nothing of caches, so it can be taken up again in new ones.

    Args:
        index: the request's number.
        request: what is asked.
        model: what answers.
        candidates: used where the request has none of its own.

    Attributes:
        report: what its steps tell of other tokens than the chosen one.
    """

    def __init__(self, index: int, request: Request, model: LanguageModel, candidates: int = 0) -> None:
        self.index = index
        own = candidates if request.candidates is None else request.candidates
        self.report = Report(own, request.top_logprobs)
        self.prompts = request.prompts
        self.prompted_ids = ([*self.prompts.streams.values()][1:2] or [self.prompts.base])[0].ids
        self.settings = settings = request.settings
        self.method = method = METHODS[settings.effective_method]
        self._second: SecondStream | None = method.second_stream(settings)
        self.ids: list[int] = []
        self.window = method.window(settings)
        self.finish: FinishReason | None = None
        self.closed = False
        self._model, self._seed = model, _seed_of(request, settings)
        self._limit = model.context_for(method, settings)
        self.generator: torch.Generator | None = None
        if self._seed is not None:
            self.generator = make_generator(self._seed, model.device)
        self.begin()
        self._added = self._subtracted = 0
        self._context_full = False
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        marks = request.prompts.thinking
        if marks is None:
            self.phase = Phase.ANSWERING
        else:
            self.phase = Phase.THINKING if marks.opened else Phase.UNDECIDED
        self._detokenizer = Detokenizer(model.tokenizer, settings.stop if marks is None else ())
        if settings.max_new_tokens == 0:
            self.finish = FinishReason.LENGTH

    def begin(self) -> None:
        """Starts its clock: now its turn has come."""
        self._begin = time.perf_counter()

    @property
    def wants_contrast(self) -> bool:
        """Whether the next token is one of the contrast window."""
        return self.phase is Phase.ANSWERING and self.window > 0

    @property
    def alike(self) -> Hashable:
        """What its next token is chosen by: one step serves all rows for which this is equal."""
        names = [name for name, _ in self.method.symbols] if self.wants_contrast else []
        names += ["temperature", "top_k", "top_p"]
        rule = self.method.rule if self.wants_contrast else ""
        return rule, self.report, *(getattr(self.settings, name) for name in names)

    @property
    def readers(self) -> tuple[Any, Any]:
        """The models that read its unprompted and prompted stream; None where there is no such stream.

        Raises:
            ModelError: what the method needs besides the model is not loaded.
        """
        second = None if self._second is None else self._model.second(self._second, self.settings)
        return self._model.first(self.method, self.settings), second

    @property
    def drafts(self) -> bool:
        """Whether its second stream is a draft model that proposes tokens."""
        return self.method.resource == "draft"

    @property
    def room(self) -> int:
        """How many more tokens the answer may get: at least one while it is not finished."""
        limit = self._limit
        room = self.settings.max_new_tokens - len(self.ids)
        return room if limit is None else min(room, limit - self._longest_prompt() - len(self.ids))

    def prompt_ids(self, prompted: bool) -> tuple[int, ...]:
        """What one of the streams has to be fed for the next token: its prompt and the answer so far."""
        prompt = self.prompted_ids if prompted else self.prompts.base.ids
        return (*prompt, *self.ids)

    def redraw(self, vocab: int) -> None:
        """Sets the generator back to where it stood after the tokens so far."""
        if self._seed is not None:
            self.generator = make_generator(self._seed, self._model.device)
            for _ in self.ids:
                draw_noise([self.generator], vocab, self._model.device)

    def settle(self, next_plain_id: int) -> None:
        """Decides, from the first plain token, whether the model begins to think."""
        marks = self.prompts.thinking
        assert marks is not None
        text = decode_ids(self._model.tokenizer, [next_plain_id], control=True).strip()
        # a tag may be several tokens, but a lone "<" begins an answer in HTML as well
        if len(text) > 1 and marks.open.startswith(text):
            self.phase = Phase.THINKING
        else:
            self._begin_answer()

    def started(self) -> Started:
        """The event that opens the request."""
        return Started(
            request=self.index,
            model=self._model.name,
            revision=self._model.revision,
            method=self.method.label(self.settings),
            prompted_tokens=len(self.prompted_ids) if self.method.second else 0,
            unprompted_tokens=len(self.prompts.base.ids),
            settings=self.settings.decoding(),
            seed=self._seed,
        )

    @property
    def seed(self) -> int | None:
        """What it is sampled with; None where it is greedy."""
        return self._seed

    def take(self, outcome: RowOutcome, *, last: bool = False) -> TokenStep:
        """Takes the chosen token: moves the state on and gives its event.

        Args:
            outcome: what was chosen.
            last: whether the answer ends with it, though its id may not say so.
        """
        thinking = self.phase is not Phase.ANSWERING
        token_id = outcome.token_id
        self.ids.append(token_id)
        self._added += outcome.decision is Decision.ADD
        self._subtracted += outcome.decision is Decision.SUBTRACT
        if self.wants_contrast:
            self.window -= 1
            if self.method.follows_track and token_id != outcome.measures.prompted_top_id:
                self.window = 0
        text = self._text_of(token_id, thinking, last)
        top = outcome.measures.prompted_top_id
        return TokenStep(
            request=self.index,
            index=len(self.ids) - 1,
            token_id=token_id,
            text=text,
            token=self._spell(token_id),
            decision=outcome.decision,
            measures=outcome.measures,
            plain_token_id=outcome.plain_token_id,
            plain_token=self._spell(outcome.plain_token_id),
            prompted_top=None if top is None else self._spell(top),
            thinking=thinking,
            candidates=tuple(
                Candidate(
                    found.token_id,
                    self._spell(found.token_id),
                    found.prompted_logprob,
                    found.unprompted_logprob,
                    found.score,
                    found.kept,
                )
                for found in outcome.candidates
            ),
            logprob=outcome.logprob,
            top_logprobs=tuple(
                TokenLogprob(found, self._spell(found), logprob) for found, logprob in outcome.top_logprobs
            ),
            exact=outcome.exact,
            elapsed_s=time.perf_counter() - self._begin,
        )

    def finished(self) -> Finished:
        """The event that closes the request; a request that nothing ended was cancelled."""
        self.closed = True
        elapsed = time.perf_counter() - self._begin
        return Finished(
            request=self.index,
            text="".join(self._texts),
            finish_reason=self.finish or FinishReason.CANCELLED,
            tokens=len(self.ids),
            added=self._added,
            subtracted=self._subtracted,
            tokens_per_s=len(self.ids) / elapsed if self.ids and elapsed > 0 else 0.0,
            peak_memory_bytes=peak_memory_bytes(self._model.device),
            thinking="".join(self._thoughts),
            context_full=self._context_full,
        )

    def not_finite(self) -> LogitsError:
        """What is wrong where a logit of the next token is NaN or infinite."""
        dtype = str(getattr(self._model.model, "dtype", "unknown dtype")).removeprefix("torch.")
        return LogitsError(
            f"The logits of step {len(self.ids)} are not finite (NaN or infinity), in {dtype}.",
            "Try another --dtype (bfloat16 or float32); if it stays so, the checkpoint is damaged.",
        )

    def _text_of(self, token_id: int, thinking: bool, last: bool) -> str:
        """The text that became final with the token; says in `finish` whether the request ended with it."""
        ended = last or token_id in self._model.eos_ids
        detokenizer = self._detokenizer
        text = "" if ended else detokenizer.push(token_id)
        closed = thinking and not ended and self._closes_thinking()
        if closed:
            self._begin_answer()
        if ended or detokenizer.stopped:
            self.finish = FinishReason.STOP
        elif len(self.ids) >= self.settings.max_new_tokens:
            self.finish = FinishReason.LENGTH
        elif self._is_full():
            self.finish, self._context_full = FinishReason.LENGTH, True
        if self.finish is not None or closed:
            text += detokenizer.flush()
            if detokenizer.stopped:
                self.finish, self._context_full = FinishReason.STOP, False
        (self._thoughts if thinking else self._texts).append(text)
        return text

    def _is_full(self) -> bool:
        """Whether a stream that the next token needs has no position left in the model's context."""
        limit = self._limit
        return limit is not None and self._longest_prompt() + len(self.ids) >= limit

    def _longest_prompt(self) -> int:
        """Prompt length of the streams that the next token needs."""
        prompt = len(self.prompts.base.ids)
        return max(prompt, len(self.prompted_ids)) if self.wants_contrast else prompt

    def _closes_thinking(self) -> bool:
        marks = self.prompts.thinking
        tail = decode_ids(self._model.tokenizer, self.ids[-_CLOSING_TAG_TOKENS:], control=True)
        return marks is not None and marks.close in tail

    def _begin_answer(self) -> None:
        self.phase = Phase.ANSWERING
        self._detokenizer = Detokenizer(self._model.tokenizer, self.settings.stop, strip_start=True)

    def _spell(self, token_id: int) -> str:
        return decode_ids(self._model.tokenizer, [token_id], control=True)


def _seed_of(request: Request, settings: Settings) -> int | None:
    if settings.temperature == 0:
        return None
    for seed in (request.seed, settings.seed):
        if seed is not None:
            return seed
    return secrets.randbits(31)
