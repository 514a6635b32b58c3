"""One request while it is decoded: which streams its next token needs, and how that is chosen.

It knows nothing of caches, so it can be taken up again in new sequences at any time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from adacd_cli.config.methods import METHODS, Method
from adacd_cli.engine import partial as told
from adacd_cli.engine.answer import Answer, Phase
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
from adacd_cli.engine.model import LanguageModel, Request
from adacd_cli.engine.rules import adacd, rule_of, state_of
from adacd_cli.engine.rules.base import Rule
from adacd_cli.engine.step import (
    Process,
    Report,
    ScoreProcessor,
    StepOutcome,
    draw_noise,
    is_processed,
    make_generator,
)
from adacd_cli.engine.switches import DECISIONS, switch_for
from adacd_cli.errors import ConfigurationError
from adacd_cli.events import Decision, TokenStep


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
        assert self.sequence is not None
        return self.sequence

    @property
    def ready(self) -> bool:
        """Whether the logits are there, and no more of them are on their way."""
        return self.logits is not None and self.pending is None

    def release(self) -> SequenceId | None:
        """Forgets its sequence, and gives it to be closed or parked."""
        if self.pending is not None:
            self.pending.cancel()
        sequence, self.sequence, self.fed, self.pending, self.logits = self.sequence, None, 0, None, None
        return sequence


class RequestState(Answer):
    """The state of one request, which was validated; `device` is where its logits arrive."""

    def __init__(self, index: int, request: Request, model: LanguageModel, device: torch.device) -> None:
        super().__init__(index, request, model)
        settings, method = self.settings, self.method
        self.report = Report(request.candidates, request.top_logprobs)
        self.streams: dict[str, StreamState] = {}  # by name, the base stream first
        for spec in method.streams_for(settings):
            prompt = self.prompts.streams[spec.name]
            weights = BASE if spec.weights == "base" else (spec.weights, getattr(settings, spec.weights))
            steps = method.steps(spec, settings)
            self.streams[spec.name] = StreamState(spec.name, prompt.ids, weights, steps, prompt.recurs)
        self.rule_state = state_of(method, settings)
        self.switch = switch_for(settings, model.profile.numbers if model.profile else None)
        self.decision: Decision | None = None  # the switch's, once it has decided
        self.switch_exact = True
        self._switch_measures: dict[str, float] = {}
        self._follows_track = method.follows_track or self.switch is not None
        self._window_left = method.window(settings)
        self.proposals: list[tuple[int, torch.Tensor]] = []  # a draft's for the next places, with its logits
        self.run: FreeRun | None = None  # the stretch that the backend decodes by itself now
        self._free_run_useless, self.run_start = False, 0
        self.cancelled = False
        self.failure: Exception | None = None  # of the backend to give its logits, or of its grammar
        self.noise: torch.Tensor | None = None  # of the next token, [1, vocab], once it is drawn
        self._device = device
        self._generator: torch.Generator | None = None
        self._processor: ScoreProcessor | None = None
        if is_processed(settings) or self.grammar is not None:
            ends = self.ends | model.eos_ids
            self._processor = ScoreProcessor(settings, self.base.prompt, ends, device)

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
        """Has the switch decide once it has all the logits it needs; tokens that were not told stand at their
        share of what is left."""
        wanted = list(self.wanted())
        if self.switch is None or not all(stream.ready for stream in wanted):
            return
        logits = self.logits()
        tokens = set(self.switch.tokens)
        self.switch_exact = all(each.told is None or tokens <= set(each.told) for each in logits.values())
        rows = {name: each.at() for name, each in logits.items()}
        self.decision, self._switch_measures = self.switch.decide(rows)
        if self.decision is Decision.PLAIN:
            self._window_left = 0

    @property
    def first_openers(self) -> tuple[int, ...]:
        """What SUBTRACT takes out at the token that a switch decided on; () elsewhere."""
        first = self.decision is Decision.SUBTRACT and self.answered == 0
        return self.switch.numbers.openers if self.switch is not None and first else ()

    def wanted(self) -> Iterator[StreamState]:
        yield self.base
        if self.switch is not None and self.undecided and not self.switch.needs_prompted:
            return
        if self.wants_contrast:
            for stream in list(self.streams.values())[1:]:
                if self.answered < stream.steps:
                    yield stream

    def wanted_after_next(self) -> Iterator[StreamState]:
        """The streams that the token after the next one needs, as far as can be known before the next one."""
        if self.room > 1:
            for place, stream in enumerate(self.wanted()):
                if place == 0 or (self._window_left > 1 and self.answered + 1 < stream.steps):
                    yield stream

    @property
    def ready(self) -> bool:
        """Whether all logits are there that the next token is chosen by."""
        return (
            self.run is None
            and self.phase is not Phase.UNDECIDED
            and not self.undecided
            and all(stream.ready or (self.proposals and stream is not self.base) for stream in self.wanted())
        )

    def logits(self) -> dict[str, Logits]:
        return {stream.name: stream.logits for stream in self.wanted() if stream.logits is not None}

    @property
    def method_now(self) -> Method:
        """What the next token is chosen by: the method inside its window, plain decoding elsewhere."""
        return self.method if self.wants_contrast else METHODS["default"]

    def needs(self, vocab: int) -> dict[str, Need]:
        """What more has to be told for the next token to be certain; see `engine.partial`."""
        switched = self.decision, self.first_openers
        return told.needs(self.method_now, self.settings, self.logits(), self.draw(vocab), *switched)

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
        settings = self.settings
        # one that is taken up again draws on, rather than the same once more
        seed = None if self.seed is None else (self.seed + len(self.ids)) % 2**63
        listed = max(1, self.report.candidates, self.report.top_logprobs or 0)
        controls = settings.controls
        changed = {"min_tokens": max(0, settings.min_tokens - len(self.ids)), "logit_bias": settings.biases}
        controls |= {name: value for name, value in changed.items() if name in controls}
        return Sampling(settings.temperature, settings.top_p, settings.top_k, seed, listed, controls)

    def end_run(self) -> bool:
        """Ends it, and gives whether there was one; where it gave nothing, the next token is chosen here."""
        if self.run is None:
            return False
        self.run.close()
        self.run, self._free_run_useless = None, len(self.ids) == self.run_start
        return True

    @property
    def alike(self) -> Hashable:
        """What its next token is chosen by: one step serves all requests for which this is equal."""
        names = [name for name, _ in self.method.symbols] if self.wants_contrast else []
        names += ["temperature", "top_k", "top_p", "min_p"]
        rule = self.method.rule if self.wants_contrast else ""
        streams = tuple(stream.name for stream in self.wanted())
        alone = None if self._processor is None else self.index  # its scores depend on its own tokens
        values = [getattr(self.settings, name) for name in names]
        return rule, streams, self.decision, self.first_openers, self.report, alone, *values

    @property
    def rule(self) -> Rule:
        if self.decision is not None:
            decision = DECISIONS.index(self.decision)
            return partial(adacd.decided, decision=decision, openers=self.first_openers)
        rule: Rule = rule_of(self.method) if self.rule_state is None else self.rule_state.rule
        return rule

    @property
    def process(self) -> Process | None:
        """What changes the next token's final scores; None where nothing does."""
        if self._processor is None:
            return None
        held = self.grammar if self.phase is Phase.ANSWERING else None
        return partial(self._processor, answer=self.ids, allowed=None if held is None else held.allowed)

    @property
    def room(self) -> int:
        room = self.settings.max_new_tokens
        if self.limit is not None:
            room = min(room, self.limit - max(len(stream.prompt) for stream in self.wanted()))
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

    def take(self, outcome: StepOutcome, *, last: bool = False) -> TokenStep:
        self.noise, self._free_run_useless = None, False
        for stream in self.streams.values():
            stream.logits = None
        if self.wants_contrast:
            left = not self._follows_track or outcome.token_id == outcome.measures.prompted_top_id
            self._window_left = self._window_left - 1 if left else 0
        if self._switch_measures:  # at the token that it decided on
            named = {**outcome.measures.named, **self._switch_measures}
            outcome = replace(outcome, measures=replace(outcome.measures, named=named))
            self._switch_measures = {}
        step = self.add(outcome, last=last)
        if self.grammar is not None and self.grammar.error:
            self.failure = ConfigurationError(
                f"The answer cannot be held to its JSON schema any more: {self.grammar.error}."
            )
        return step
