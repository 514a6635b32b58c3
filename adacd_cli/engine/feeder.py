"""The feeder: brings each stream's sequence to where the next token is chosen.

It opens sequences (the base stream's first, every other one as a fork of it as far as both agree, or of what shares
more), feeds prompts in chunks and answers token by token, has drafts propose tokens, and takes the logits that have
arrived. When requests run, and what is chosen, is the scheduler's. `score` is one pass over a prompt besides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from adacd_cli.engine import partial
from adacd_cli.engine.answer import Phase, decode_ids
from adacd_cli.engine.backend import BASE, NEXT, NOTHING, Backend, Extend, Need
from adacd_cli.engine.prefix_cache import PrefixCache
from adacd_cli.engine.rules.default import rule as default
from adacd_cli.engine.state import RequestState, StreamState
from adacd_cli.engine.step import pack_step, unpack
from adacd_cli.events import ScoredToken, TokenLogprob

_CHUNK = 128  # tokens in one forward: the logits of a large vocabulary take half a megabyte each


class Feeder:
    """Feeds the streams of running requests; ended ones leave their sequences in the prefix cache."""

    def __init__(self, backend: Backend, prefix_cache: PrefixCache) -> None:
        self._backend, self._can, self._cache = backend, backend.capabilities, prefix_cache

    def feed(self, states: Sequence[RequestState]) -> None:
        """Feeds all that can be fed in one step: a round for the base streams, one for the forks of them, and as
        many as drafts propose tokens. Raises as `Backend.forward`."""
        budget = self._can.prefill_chunk
        while True:
            for state in states:
                if state.phase is Phase.UNDECIDED and state.run is None and self.collect(state) is None:
                    self._settle(state)
                if state.undecided and state.run is None and self.collect(state) is None:
                    state.decide()
            work = self._work(states, budget)
            if work:
                self._forward(work)
                long = sum(len(extend.tokens) for _, extend in work if len(extend.tokens) > 1)
                budget = None if budget is None else max(0, budget - long)
            elif not self._draft(states):
                break
        for state in states:
            if self._can.free_run and state.run is None and state.may_run_freely:
                self._run_freely(state, states)

    def feed_ahead(self, states: Sequence[RequestState], tokens: torch.Tensor) -> None:
        """Feeds chosen tokens, int64 [requests] on the device, before the host has seen them, so that a GPU
        computes the next logits meanwhile. A request that turns out to have ended was fed one for nothing."""
        self._forward(
            [
                (stream, Extend(stream.opened, tokens[place : place + 1], NEXT))
                for place, state in enumerate(states)
                for stream in state.wanted_after_next()
            ]
        )

    def collect(self, state: RequestState) -> Exception | None:
        """Takes logits that have arrived to their streams; gives what went wrong for this request."""
        try:
            for stream in state.streams.values():
                if stream.pending is not None and stream.pending.done():
                    pending, stream.pending = stream.pending, None
                    stream.logits = pending.result()
        except Exception as error:
            state.failure = error
        return state.failure

    def complete(self, states: Sequence[RequestState]) -> None:
        """Asks for more where logits are partial and the next token depends on what is not known."""
        if self._can.full_logits:
            return
        while True:
            work = []
            for state in states:
                if state.ready and state.failure is None:
                    logits = state.logits()
                    for name, need in state.needs(self._can.vocab_size or 0).items():
                        if not logits[name].exhausted:
                            work.append((state.streams[name], Extend(state.streams[name].opened, (), need)))
            if not work:
                return
            self._forward(work)
            for state in states:
                self.collect(state)

    def close_unwanted(self, state: RequestState) -> None:
        """Closes the streams that the rest of the answer does not need."""
        wanted = list(state.wanted())
        for stream in state.streams.values():
            if stream.sequence is not None and stream not in wanted:
                self.close(stream, park=stream.recurs)

    def close(self, stream: StreamState, *, park: bool) -> None:
        sequence = stream.release()
        if sequence is not None and park and self._can.fork and self._cache.limit > 0:
            self._cache.park(self._backend, sequence, stream.weights)
        elif sequence is not None:
            self._backend.close([sequence])

    def close_all(self, states: Iterable[RequestState]) -> bool:
        """Closes everything; the requests keep what they have answered. Gives whether something was parked."""
        for state in states:
            state.end_run()
            state.proposals = []
            for stream in state.streams.values():
                self.close(stream, park=False)
        return self._cache.clear(self._backend)

    def trim(self, stream: StreamState, length: int) -> None:
        stream.logits = None
        if self._can.trim:
            self._backend.trim(stream.opened, length)
            stream.fed = length
        else:
            self.close(stream, park=False)

    def _forward(self, work: Sequence[tuple[StreamState, Extend]]) -> None:
        results = self._backend.forward([extend for _, extend in work])
        for (stream, extend), pending in zip(work, results, strict=True):
            stream.fed += len(extend.tokens)
            if extend.need.positions:
                stream.pending = pending

    def _work(self, states: Sequence[RequestState], budget: int | None) -> list[tuple[StreamState, Extend]]:
        """What the streams lack, prompts for at most `budget` tokens in all."""
        work: list[tuple[StreamState, Extend]] = []
        for state in states:
            if state.run is not None or (self._can.free_run and state.may_run_freely):
                continue
            for stream in state.wanted():
                if stream.pending is not None or stream.logits is not None:
                    continue
                if stream.sequence is None and not self._open(state, stream, states):
                    break  # its base stream has to read on first
                tokens, need = state.lacks(stream)
                if len(tokens) > 1 and budget is not None:
                    if len(tokens) > budget and self._backend.alike(stream.weights, 1, len(stream.prompt)):
                        if budget < (self._can.prefill_chunk or 0):
                            break  # a whole chunk in the next step, rather than a bit of one now
                        tokens, need = tokens[:budget], NOTHING
                    budget = max(0, budget - len(tokens))
                if need is NEXT and not self._can.full_logits:
                    names = [each.name for each in state.wanted()]
                    asked = partial.first_needs(state.method_now, state.settings, names, state.report)
                    need = asked[stream.name]
                    if state.switch is not None and state.undecided:
                        need = replace(need, ids=state.switch.tokens)
                if tokens or (need.positions and not self._can.full_logits):  # of what was fed before
                    work.append((stream, Extend(stream.opened, tokens, need)))
        return work

    def _open(self, state: RequestState, stream: StreamState, states: Sequence[RequestState]) -> bool:
        """Opens a stream's sequence with all that can be taken over; False while its base has to read on first."""
        whole = (*stream.prompt, *state.ids)
        running = []
        if self._can.fork:
            base = state.base
            if stream is not base and stream.weights == base.weights:
                shared = min(state.prompts.shared_with_base(stream.name), len(whole) - 1)
                alike = self._backend.alike(base.weights, len(base.prompt) + len(state.ids), len(whole))
                if alike and base.fed < shared:
                    return False
            running = [
                (other.weights, other.sequence, (*other.prompt, *each.ids)[: other.fed])
                for each in states
                for other in each.streams.values()
                if other.sequence is not None and other.fed > 0
            ]
        stream.sequence, stream.fed = self._cache.open(self._backend, stream.weights, whole, running)
        return True

    def _settle(self, state: RequestState) -> None:
        """Before the first token: what a model that may think would plainly begin with decides."""
        base = state.base
        if base.logits is None:
            return
        logits = base.logits.at()
        noise = state.draw(logits.shape[-1])
        plain = pack_step(default, {base.name: logits}, state.settings, noise, process=state.process)
        state.settle(unpack([plain])[0].token_id)
        if state.drafts:  # its last token is fed again, with what the draft proposes
            self.trim(base, base.fed - 1)

    def _draft(self, states: Sequence[RequestState]) -> bool:
        """Has drafts propose tokens, greedily, where only the last token is lacking; whether any did."""
        states = [state for state in states if state.can_draft]
        rounds = [
            (state, [*state.streams.values()][1], min(state.settings.draft_tokens, state.room))
            for state in states
        ]
        for place in range(max((length for *_, length in rounds), default=0)):
            proposing = [(state, draft) for state, draft, length in rounds if place < length]
            self._forward(
                [
                    (draft, Extend(draft.opened, state.proposals[-1][:1] if place else state.tail(draft)))
                    for state, draft in proposing
                ]
            )
            for state, draft in proposing:
                assert draft.pending is not None
                scored, draft.pending = draft.pending.result(), None
                assert scored is not None
                state.proposals.append((int(scored.at().argmax()), scored.at()))
        return bool(states)

    def _run_freely(self, state: RequestState, states: Sequence[RequestState]) -> None:
        base = state.base
        if base.sequence is None:
            self._open(state, base, states)
        self._forward([(base, Extend(base.opened, state.tail(base), NOTHING))])
        state.run = self._backend.free_run(base.opened, state.sampling(), state.room)
        state.run_start = len(state.ids)

    def end_run(self, state: RequestState) -> None:
        """Ends a stretch that the backend decodes; what was taken and not used is taken back."""
        if state.end_run():
            self._backend.trim(state.base.opened, state.base.fed)


@torch.inference_mode()
def score(backend: Backend, tokenizer: Any, ids: Sequence[int], top: int) -> list[ScoredToken]:
    """Every token of a prompt with its log-probability by the base weights, which the first one has not, and the
    `top` most probable tokens at each position. The backend has full logits, and holds no more sequences afterwards
    than before; raises as `Backend.forward`."""

    def spell(token_id: int) -> str:
        return decode_ids(tokenizer, [token_id], control=True)

    sequence, scored = backend.open(), [ScoredToken(ids[0], spell(ids[0]))]
    pieces = backend.capabilities.prefill_chunk is not None and backend.alike(BASE, 1, len(ids))
    size = _CHUNK if pieces else len(ids)
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        (pending,) = backend.forward([Extend(sequence, part, Need(positions=len(part)))])
        logits = pending.result()
        assert logits is not None
        after = ids[start + 1 : start + size + 1]
        logprobs = logits.batch[logits.row, -len(part) :][: len(after)].float().log_softmax(dim=-1)
        own = logprobs.gather(-1, torch.tensor(after, device=logprobs.device).unsqueeze(-1)).flatten()
        best = logprobs.topk(min(top, logprobs.shape[-1]), dim=-1)
        rows = zip(after, own.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        for token_id, logprob, others, values in rows:
            listed = tuple(TokenLogprob(each, spell(each), p) for each, p in zip(others, values, strict=True))
            scored.append(ScoredToken(token_id, spell(token_id), logprob, listed))
    backend.close([sequence])
    return scored
