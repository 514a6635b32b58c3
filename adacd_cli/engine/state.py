"""One request while it is decoded: what was answered so far, where it stands, and the events it gives.

It knows nothing of caches, so it can be taken up again in new sequences at any time.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

import torch

from adacd_cli.config.methods import METHODS, Method, StreamSpec
from adacd_cli.engine.backend import (
    BASE,
    NEXT,
    NOTHING,
    FreeRun,
    Logits,
    Need,
    Pending,
    Sampling,
    SequenceId,
    Weights,
)
from adacd_cli.engine.detokenize import Detokenizer, decode_ids
from adacd_cli.engine.first_token import switch_for
from adacd_cli.engine.memory import peak_memory_bytes
from adacd_cli.engine.processing import Process, ScoreProcessor, is_processed
from adacd_cli.engine.rules import rule_of, state_of
from adacd_cli.engine.step import Report, StepOutcome, draw_noise, make_generator
from adacd_cli.errors import ConfigurationError, LogitsError
from adacd_cli.events import Decision, Finished, FinishReason, Started, TokenLogprob, TokenStep

if TYPE_CHECKING:
    from adacd_cli.engine.model import LanguageModel, Request
    from adacd_cli.engine.rules.base import Rule

_CLOSING_TAG_TOKENS = 16
"""How many of the last tokens are searched for the closing tag of the thinking."""


class Phase(Enum):
    UNDECIDED = auto()  # the model may or may not begin with a thinking tag
    THINKING = auto()
    ANSWERING = auto()


@dataclass(eq=False)
class StreamState:
    """One stream of a request."""

    name: str
    prompt: tuple[int, ...]
    weights: Weights
    steps: int  # how many answer tokens it is fed for; the base stream is fed for all
    recurs: bool = True  # whether its prompt is the beginning of the next turn's
    sequence: SequenceId | None = None
    fed: int = 0  # how many tokens of prompt and answer it was fed
    pending: Pending | None = None
    logits: Logits | None = None  # of the next token, once they are there

    @property
    def opened(self) -> SequenceId:
        """Its sequence, which is there."""
        assert self.sequence is not None
        return self.sequence

    def release(self) -> SequenceId | None:
        """Forgets its sequence, and gives it to be closed or parked."""
        if self.pending is not None:
            self.pending.cancel()
        sequence, self.sequence, self.fed, self.pending, self.logits = self.sequence, None, 0, None, None
        return sequence


class RequestState:
    """The state of one request, which was validated; `device` is where its logits arrive.

    Attributes:
        streams: by name, the base stream first.
        ids: the answer so far, thinking included.
        proposals: tokens that a draft proposed for the next places, with the draft's logits there.
        run: the stretch that the backend decodes by itself now; None while tokens are chosen here.
        noise: what the next token is drawn with, float32 [1, vocab]; None when greedy, or not drawn yet.
        failure: why it cannot go on: the backend gave no logits for it, or its grammar is too much work.
    """

    def __init__(self, index: int, request: Request, model: LanguageModel, device: torch.device) -> None:
        settings = request.settings
        self.index, self.settings, self.prompts = index, settings, request.prompts
        self.method = method = METHODS[settings.effective_method]
        self.report = Report(request.candidates, request.top_logprobs)
        self.streams = {
            spec.name: self._stream(spec, method.steps(spec, settings))
            for spec in method.streams_for(settings)
        }
        self.rule_state = state_of(method, settings)
        self.switch = switch_for(settings, model.profile)
        self.decision: Decision | None = None  # the switch's, once it has decided
        self._switch_measures: dict[str, float] = {}
        self._follows_track = method.follows_track or self.switch is not None
        self.switch_exact = True
        self.ids: list[int] = []
        self.proposals: list[tuple[int, torch.Tensor]] = []
        self.run: FreeRun | None = None
        self._free_run_useless, self._run_start = False, 0
        self.finish: FinishReason | None = None
        self.closed = False
        self.cancelled = False
        self.failure: Exception | None = None
        self._grammar = None if request.grammar is None else request.grammar.fork()
        given = settings.seed if request.seed is None else request.seed
        self.seed = None if settings.temperature == 0 else secrets.randbits(31) if given is None else given
        self.noise: torch.Tensor | None = None
        self._model, self._device = model, device
        self._generator: torch.Generator | None = None
        self._limit = model.context_for(method, settings)
        self._window_left = method.window(settings)
        self._answered = 0
        self._began = time.perf_counter()
        self._added = self._subtracted = 0
        self._context_full = False
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._ends = frozenset(settings.stop_token_ids)
        self._ends |= frozenset() if settings.ignore_eos else model.eos_ids
        self._processor: ScoreProcessor | None = None
        if is_processed(settings) or self._grammar is not None:
            ends = self._ends | model.eos_ids
            self._processor = ScoreProcessor(settings, self.base.prompt, ends, device)
        marks, self.phase = request.prompts.thinking, Phase.ANSWERING
        if marks is not None:
            self.phase = Phase.THINKING if marks.opened else Phase.UNDECIDED
        stops = settings.stop if marks is None else ()
        self._detokenizer = Detokenizer(model.tokenizer, stops, before=request.prompts.continued)
        if settings.max_new_tokens == 0:
            self.finish = FinishReason.LENGTH

    def _stream(self, spec: StreamSpec, steps: int) -> StreamState:
        prompt = self.prompts.streams[spec.name]
        weights = BASE if spec.weights == "base" else (spec.weights, getattr(self.settings, spec.weights))
        return StreamState(spec.name, prompt.ids, weights, steps, prompt.recurs)

    def begin(self) -> None:
        """Starts its clock: it is admitted."""
        self._began = time.perf_counter()

    @property
    def base(self) -> StreamState:
        return next(iter(self.streams.values()))

    @property
    def wants_contrast(self) -> bool:
        """Whether the next token is one of the contrast window."""
        return self.phase is Phase.ANSWERING and self._window_left > 0

    @property
    def undecided(self) -> bool:
        """Whether a switch has yet to decide what the window does, from the logits of its first token."""
        return self.switch is not None and self.decision is None and self.wants_contrast

    def decide(self) -> None:
        """Has the switch decide; the logits that it needs are there."""
        assert self.switch is not None
        logits = {name: each.at() for name, each in self.logits().items()}
        self.decision, self._switch_measures = self.switch.decide(logits)
        if self.decision is Decision.PLAIN:
            self._window_left = 0

    @property
    def first_openers(self) -> tuple[int, ...]:
        """What SUBTRACT takes out at the token that a switch decided on; () elsewhere."""
        first = self.switch is not None and self.decision is Decision.SUBTRACT and self._answered == 0
        return self.switch.numbers.openers if first and self.switch else ()

    def wanted(self) -> Iterator[StreamState]:
        """The streams that the next token needs, the base stream first."""
        yield self.base
        if self.switch is not None and self.undecided and not self.switch.needs_prompted:
            return
        if self.wants_contrast:
            for stream in list(self.streams.values())[1:]:
                if self._answered < stream.steps:
                    yield stream

    def wanted_after_next(self) -> Iterator[StreamState]:
        """The streams that the token after the next one needs, as far as can be known before the next one."""
        if self.room > 1:
            for place, stream in enumerate(self.wanted()):
                if place == 0 or (self._window_left > 1 and self._answered + 1 < stream.steps):
                    yield stream

    @property
    def ready(self) -> bool:
        """Whether all logits are there that the next token is chosen by."""
        return (
            self.run is None
            and self.phase is not Phase.UNDECIDED
            and not self.undecided
            and all(
                (stream.logits is not None and stream.pending is None)
                or (self.proposals and stream is not self.base)
                for stream in self.wanted()
            )
        )

    def logits(self) -> dict[str, Logits]:
        """The logits of the next token that are there, by the stream's name."""
        return {stream.name: stream.logits for stream in self.wanted() if stream.logits is not None}

    @property
    def method_now(self) -> Method:
        """What the next token is chosen by: the method inside its window, plain decoding elsewhere."""
        return self.method if self.wants_contrast else METHODS["default"]

    def lacks(self, stream: StreamState) -> tuple[tuple[int, ...], Need]:
        """What a stream has to be fed now, and what is asked of the logits after it. Where a draft proposes tokens,
        both streams are first fed all but the last token, and the target then that and the proposals."""
        tail = self.tail(stream)
        if not self.drafts:
            return tail, NEXT
        if self.proposals and stream is self.base:
            proposed = tuple(token for token, _ in self.proposals[:-1])
            return (*tail, *proposed), Need(positions=len(self.proposals))
        return (() if self.proposals else tail[:-1]), NOTHING

    def tail(self, stream: StreamState) -> tuple[int, ...]:
        """What a stream still has to be fed for the next token."""
        left = len(stream.prompt) - stream.fed
        return (*stream.prompt[stream.fed :], *self.ids) if left >= 0 else tuple(self.ids[-left:])

    @property
    def drafts(self) -> bool:
        """Whether a draft model proposes its next tokens."""
        return self.method.resource == "draft" and self.wants_contrast

    @property
    def can_draft(self) -> bool:
        """Whether the draft's turn has come: both streams lack the last token only."""
        return (
            self.drafts
            and not self.proposals
            and all(each.sequence is not None and len(self.tail(each)) == 1 for each in self.wanted())
        )

    @property
    def may_run_freely(self) -> bool:
        """Whether the next tokens need no stream but the base, and a backend can decode them by itself."""
        alone = self._window_left == 0 or self.phase is Phase.THINKING
        return alone and not self._free_run_useless

    def sampling(self) -> Sampling:
        """How a backend that decodes by itself chooses."""
        settings = self.settings
        # one that is taken up again draws on, rather than the same once more
        seed = None if self.seed is None else (self.seed + len(self.ids)) % 2**63
        listed = max(1, self.report.candidates, self.report.top_logprobs or 0)
        controls = settings.controls
        changed = {"min_tokens": max(0, settings.min_tokens - len(self.ids)), "logit_bias": settings.biases}
        controls |= {name: value for name, value in changed.items() if name in controls}
        return Sampling(settings.temperature, settings.top_p, settings.top_k, seed, listed, controls)

    def start_run(self, run: FreeRun) -> None:
        self.run, self._run_start = run, len(self.ids)

    def end_run(self) -> bool:
        """Ends it, and gives whether there was one; where it gave nothing, the next token is chosen here."""
        if self.run is None:
            return False
        self.run.close()
        self.run, self._free_run_useless = None, len(self.ids) == self._run_start
        return True

    @property
    def alike(self) -> Hashable:
        """What its next token is chosen by: one step serves all requests for which this is equal."""
        names = [name for name, _ in self.method.symbols] if self.wants_contrast else []
        names += ["temperature", "top_k", "top_p", "min_p"]
        rule = self.method.rule if self.wants_contrast else ""
        streams = tuple(stream.name for stream in self.wanted())
        alone = None if self._processor is None else self.index  # its scores depend on its own tokens
        return (
            rule,
            streams,
            self.decision,
            self.first_openers,
            self.report,
            alone,
            *(getattr(self.settings, name) for name in names),
        )

    @property
    def rule(self) -> Rule:
        if self.switch is not None and self.decision not in (None, Decision.PLAIN):
            assert self.decision is not None
            return self.switch.rule(self.decision, self.first_openers)
        rule: Rule = rule_of(self.method) if self.rule_state is None else self.rule_state.rule
        return rule

    @property
    def process(self) -> Process | None:
        """What changes the next token's final scores; None where nothing does."""
        if self._processor is None:
            return None
        held = self._grammar if self.phase is Phase.ANSWERING else None
        return partial(self._processor, answer=self.ids, allowed=None if held is None else held.allowed)

    @property
    def room(self) -> int:
        """How many more tokens the answer may get: at least one while it is not finished."""
        room = self.settings.max_new_tokens
        if self._limit is not None:
            room = min(room, self._limit - self._longest_prompt())
        return room - len(self.ids)

    def draw(self, vocab: int) -> torch.Tensor | None:
        """The noise of the next token, drawn once however often it is asked for; None when greedy."""
        if self.seed is None:
            return None
        if self.noise is None:
            if self._generator is None:
                self._generator = make_generator(self.seed, self._device)
            self.noise = draw_noise([self._generator], vocab, self._device)
        return self.noise

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
        _, second, *_ = (*self.streams.values(), None)
        shared = self.prompts.shared_with_base(second.name) if second and fork else 0
        profile = self._model.profile if self.settings.uses_profile else None
        return Started(
            request=self.index,
            model=self._model.name,
            revision=self._model.revision,
            method=self.method.label(self.settings),
            prompted_tokens=len(second.prompt) if second else 0,
            unprompted_tokens=len(self.base.prompt),
            shared_tokens=shared if second and second.weights == self.base.weights else 0,
            settings=self.settings.decoding(),
            seed=self.seed,
            engine=self._model.engine,
            profile=profile.name if profile else None,
        )

    def take(self, outcome: StepOutcome, *, last: bool = False) -> TokenStep:
        """The event of the next token; `last`: it ends the answer though its id may not say so."""
        thinking = self.phase is not Phase.ANSWERING
        token_id = outcome.token_id
        self.ids.append(token_id)
        self.noise, self._free_run_useless = None, False
        for stream in self.streams.values():
            stream.logits = None
        self._added += outcome.decision is Decision.ADD
        self._subtracted += outcome.decision is Decision.SUBTRACT
        top = outcome.measures.prompted_top_id
        if self.wants_contrast:
            self._window_left -= 1
            if self._follows_track and token_id != top:
                self._window_left = 0
        self._answered += not thinking
        if self._grammar is not None and not thinking:
            self._grammar.take(token_id)
            if self._grammar.error:
                self.failure = ConfigurationError(
                    f"The answer cannot be held to its JSON schema any more: {self._grammar.error}."
                )
        spell, measures = self._spell, outcome.measures
        if self._switch_measures:  # at the token that it decided on
            measures = replace(measures, named={**measures.named, **self._switch_measures})
            self._switch_measures = {}
        return TokenStep(
            request=self.index,
            index=len(self.ids) - 1,
            token_id=token_id,
            text=self._text_of(token_id, thinking, last),
            token=spell(token_id),
            decision=outcome.decision,
            measures=measures,
            plain_token_id=outcome.plain_token_id,
            plain_token=spell(outcome.plain_token_id),
            prompted_top=None if top is None else spell(top),
            thinking=thinking,
            candidates=tuple(replace(each, text=spell(each.token_id)) for each in outcome.candidates),
            logprob=outcome.logprob,
            top_logprobs=tuple(
                TokenLogprob(each, spell(each), logprob) for each, logprob in outcome.top_logprobs
            ),
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
            peak_memory_bytes=peak_memory_bytes(self._device),
            thinking="".join(self._thoughts),
            context_full=self._context_full,
            stop=self._detokenizer.stopped,
        )

    def not_finite(self) -> LogitsError:
        return LogitsError(
            f"The logits of step {len(self.ids)} are not finite (NaN or infinity), in "
            f"{self._model.dtype_name or 'the format of the server'}.",
            "Try another --dtype (bfloat16 or float32); if it stays so, the checkpoint is damaged.",
        )

    def _text_of(self, token_id: int, thinking: bool, last: bool) -> str:
        """The text that became final with the token; says in `finish` whether the request ended with it."""
        ended = last or token_id in self._ends
        detokenizer = self._detokenizer
        text = "" if ended else detokenizer.push(token_id)
        marks = self.prompts.thinking if thinking and not ended else None
        closed = marks is not None and marks.close in self._spell(*self.ids[-_CLOSING_TAG_TOKENS:])
        if closed:
            self._begin_answer()
        if ended or detokenizer.stopped or (self._grammar is not None and self._grammar.complete):
            self.finish = FinishReason.STOP
        elif len(self.ids) >= self.settings.max_new_tokens:
            self.finish = FinishReason.LENGTH
        elif self._limit is not None and self._longest_prompt() + len(self.ids) >= self._limit:
            self.finish, self._context_full = FinishReason.LENGTH, True
        if self.finish is not None or closed:
            text += detokenizer.flush()
            if detokenizer.stopped:
                self.finish, self._context_full = FinishReason.STOP, False
        (self._thoughts if thinking else self._texts).append(text)
        return text

    def _longest_prompt(self) -> int:
        """Prompt length of the streams that the next token needs."""
        return max(len(stream.prompt) for stream in self.wanted())

    def _begin_answer(self) -> None:
        self.phase = Phase.ANSWERING
        self._detokenizer = Detokenizer(self._model.tokenizer, self.settings.stop, strip_start=True)

    def _spell(self, *ids: int) -> str:
        return decode_ids(self._model.tokenizer, ids, control=True)
