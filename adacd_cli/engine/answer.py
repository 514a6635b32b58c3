"""A request's answer: tokens become text and events, thinking is told from the answer, and something ends it. Text
is given as it becomes final, and never taken back: incomplete UTF-8 and half stop strings are held back."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from adacd_cli.config.methods import METHODS
from adacd_cli.engine.memory import peak_memory_bytes
from adacd_cli.engine.model import LanguageModel, Request
from adacd_cli.engine.step import StepOutcome
from adacd_cli.errors import LogitsError
from adacd_cli.events import Decision, Finished, FinishReason, Started, TokenLogprob, TokenStep

_CLOSING_TAG_TOKENS = 16  # how many of the last tokens are searched for the closing tag of the thinking
_REPLACEMENT = "\ufffd"
# a character has at most four bytes, so no more replacement characters can still turn into one
_LONGEST_INCOMPLETE = 4


def decode_ids(tokenizer: Any, ids: Sequence[int], *, control: bool = False) -> str:
    """Ids as text, nothing tidied up; control tokens are left out unless asked for."""
    options = {"skip_special_tokens": not control, "clean_up_tokenization_spaces": False}
    return str(tokenizer.decode(list(ids), **options))


class TextStream:
    """Ids in, whole characters out; `before` are the ids of a text that is continued. The last piece's ids are
    decoded again with the new ones, because a tokenizer may drop the space before the first token it is given."""

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        cut = decode_ids(tokenizer, before).endswith(_REPLACEMENT) if before else False
        self._context = [] if cut else list(before)
        self._pending: list[int] = []
        self._given = ""

    def push(self, token_id: int) -> str:
        """The text that became whole with this token."""
        self._pending.append(token_id)
        return self._take(final=False)

    def flush(self) -> str:
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        before = decode_ids(self._tokenizer, self._context)
        text = decode_ids(self._tokenizer, self._context + self._pending)[len(before) :]
        # of a longer run only the end can still change: what is before it is what the model wrote
        held = 0 if final else min(len(text) - len(text.rstrip(_REPLACEMENT)), _LONGEST_INCOMPLETE)
        ready = text[: len(text) - held]
        piece = ready[len(self._given) :]
        if len(ready) == len(text):
            # a piece of nothing but left-out tokens gives no context: keep the older one
            if text:
                self._context, self._pending, self._given = self._pending, [], ""
        else:
            self._given = max(self._given, ready, key=len)
        return piece


class StopGate:
    """Holds back text that may be the beginning of a stop string; none is empty."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped: str | None = None

    def push(self, text: str) -> str:
        """The text that no stop string can take back; all before a stop string that is now complete."""
        self._held += text
        found = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            place, self.stopped = min(found)
            text, self._held = self._held[:place], ""
            return text
        at = 0  # where the longest end is that a stop string begins with
        while at < len(self._held) and not any(stop.startswith(self._held[at:]) for stop in self._stops):
            at += 1
        text, self._held = self._held[:at], self._held[at:]
        return text

    def flush(self) -> str:
        text, self._held = self._held, ""
        return text


class Detokenizer:
    """A TextStream behind a StopGate; `strip_start` leaves out white space at the start."""

    def __init__(
        self, tokenizer: Any, stops: Sequence[str], strip_start: bool = False, before: Sequence[int] = ()
    ) -> None:
        self._stream = TextStream(tokenizer, before)
        self._gate = StopGate(stops)
        self._strip = strip_start

    @property
    def stopped(self) -> str | None:
        """The stop string that is complete; None where none is."""
        return self._gate.stopped

    def push(self, token_id: int) -> str:
        return self._gate.push(self._stripped(self._stream.push(token_id)))

    def flush(self) -> str:
        """The rest, when no token will follow."""
        if self.stopped:
            return ""
        text = self._gate.push(self._stripped(self._stream.flush()))
        return text if self.stopped else text + self._gate.flush()

    def _stripped(self, text: str) -> str:
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text


class Phase(Enum):
    UNDECIDED = auto()  # the model may or may not begin with a thinking tag
    THINKING = auto()
    ANSWERING = auto()


class Answer(ABC):
    """What was answered so far."""

    def __init__(self, index: int, request: Request, model: LanguageModel) -> None:
        settings = request.settings
        self.index, self.settings, self.prompts, self.model = index, settings, request.prompts, model
        self.method = METHODS[settings.effective_method]
        given = settings.seed if request.seed is None else request.seed
        self.seed = None if settings.temperature == 0 else secrets.randbits(31) if given is None else given
        self.ids: list[int] = []  # its tokens, thinking included
        self.answered = 0  # how many of them are no thinking
        self._added = self._subtracted = 0
        self.limit = model.context_for(self.method, settings)  # positions; None where no model names any
        self.ends = frozenset(settings.stop_token_ids)
        self.ends |= frozenset() if settings.ignore_eos else model.eos_ids
        self.grammar = None if request.grammar is None else request.grammar.fork()
        self.finish = FinishReason.LENGTH if settings.max_new_tokens == 0 else None
        self.closed = False  # whether its last event was given
        self._context_full = False
        self._began = time.perf_counter()
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        marks, self.phase = request.prompts.thinking, Phase.ANSWERING
        if marks is not None:
            self.phase = Phase.THINKING if marks.opened else Phase.UNDECIDED
        stops = settings.stop if marks is None else ()
        self._detokenizer = Detokenizer(model.tokenizer, stops, before=request.prompts.continued)

    @property
    @abstractmethod
    def room(self) -> int:
        """How many more tokens it may get: at least one while it is not finished."""

    def begin(self) -> None:
        """Starts its clock: it is admitted."""
        self._began = time.perf_counter()

    def settle(self, next_plain_id: int) -> None:
        """Decides, from the first plain token, whether the model begins to think."""
        marks = self.prompts.thinking
        assert marks is not None
        text = self._spell(next_plain_id).strip()
        # a tag may be several tokens, but a lone "<" begins an answer in HTML as well
        if len(text) > 1 and marks.open.startswith(text):
            self.phase = Phase.THINKING
        else:
            self._begin_answer()

    def started(self, *, fork: bool) -> Started:
        """The event that opens the request; `fork`: whether streams take over what they share."""
        base, second, *_ = (*self.method.streams_for(self.settings), None)
        assert base is not None
        forked = second is not None and fork and second.weights == base.weights
        profile = self.model.profile if self.settings.uses_profile else None
        return Started(
            request=self.index,
            model=self.model.name,
            revision=self.model.revision,
            method=self.method.label(self.settings),
            prompted_tokens=len(self.prompts.streams[second.name].ids) if second else 0,
            unprompted_tokens=len(self.prompts.base.ids),
            shared_tokens=self.prompts.shared_with_base(second.name) if second and forked else 0,
            settings=self.settings.decoding(),
            seed=self.seed,
            engine=self.model.engine,
            profile=profile.name if profile else None,
        )

    def add(self, outcome: StepOutcome, *, last: bool) -> TokenStep:
        """The event of the next token; `last`: it ends the answer though its id may not say so."""
        thinking, token_id, spell = self.phase is not Phase.ANSWERING, outcome.token_id, self._spell
        self.ids.append(token_id)
        self.answered += not thinking
        if self.grammar is not None and not thinking:
            self.grammar.take(token_id)
        self._added += outcome.decision is Decision.ADD
        self._subtracted += outcome.decision is Decision.SUBTRACT
        top = outcome.measures.prompted_top_id
        return TokenStep(
            request=self.index,
            index=len(self.ids) - 1,
            token_id=token_id,
            text=self._text_of(token_id, thinking, last),
            token=spell(token_id),
            decision=outcome.decision,
            measures=outcome.measures,
            plain_token_id=outcome.plain_token_id,
            plain_token=spell(outcome.plain_token_id),
            prompted_top=None if top is None else spell(top),
            thinking=thinking,
            candidates=tuple(replace(each, text=spell(each.token_id)) for each in outcome.candidates),
            logprob=outcome.logprob,
            top_logprobs=tuple(TokenLogprob(each, spell(each), p) for each, p in outcome.top_logprobs),
            exact=outcome.exact,
            elapsed_s=time.perf_counter() - self._began,
        )

    def finished(self) -> Finished:
        """The event that closes the request; a request that nothing ended was cancelled."""
        self.closed = True
        elapsed = time.perf_counter() - self._began
        return Finished(
            request=self.index,
            text="".join(self._texts),
            finish_reason=self.finish or FinishReason.CANCELLED,
            tokens=len(self.ids),
            added=self._added,
            subtracted=self._subtracted,
            tokens_per_s=len(self.ids) / elapsed if self.ids and elapsed > 0 else 0.0,
            peak_memory_bytes=peak_memory_bytes(self.model.device),
            thinking="".join(self._thoughts),
            context_full=self._context_full,
            stop=self._detokenizer.stopped,
        )

    def not_finite(self) -> LogitsError:
        return LogitsError(
            f"The logits of step {len(self.ids)} are not finite (NaN or infinity), in "
            f"{self.model.dtype_name or 'the format of the server'}.",
            "Try another --dtype (bfloat16 or float32); if it stays so, the checkpoint is damaged.",
        )

    def _text_of(self, token_id: int, thinking: bool, last: bool) -> str:
        """The text that became final with the token; says in `finish` whether the request ended with it."""
        ended = last or token_id in self.ends
        detokenizer = self._detokenizer
        text = "" if ended else detokenizer.push(token_id)
        marks = self.prompts.thinking if thinking and not ended else None
        closed = marks is not None and marks.close in self._spell(*self.ids[-_CLOSING_TAG_TOKENS:])
        if closed:
            self._begin_answer()
        if ended or detokenizer.stopped or (self.grammar is not None and self.grammar.complete):
            self.finish = FinishReason.STOP
        elif self.room <= 0:
            self.finish = FinishReason.LENGTH
            self._context_full = len(self.ids) < self.settings.max_new_tokens
        if self.finish is not None or closed:
            text += detokenizer.flush()
            if detokenizer.stopped:
                self.finish, self._context_full = FinishReason.STOP, False
        (self._thoughts if thinking else self._texts).append(text)
        return text

    def _begin_answer(self) -> None:
        self.phase = Phase.ANSWERING
        self._detokenizer = Detokenizer(self.model.tokenizer, self.settings.stop, strip_start=True)

    def _spell(self, *ids: int) -> str:
        return decode_ids(self.model.tokenizer, ids, control=True)
