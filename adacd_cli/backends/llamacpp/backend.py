"""LlamaCppBackend: sequences over GGUF files in this process, all of a step in one batch of llama.cpp.

Those of one model have one context, a `Pool`. Its cells hold keys and values; a cell can belong to several
sequences, so a fork copies nothing. The pool grows as it fills. Where cells or numbers are short, the sequence that
was idle for longest loses its keys and values, and computes them anew when it goes on."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable, Collection, Sequence
from ctypes import c_int8, c_int32, c_void_p
from dataclasses import dataclass, field

import torch

from adacd_cli.backends.llamacpp.library import Batch, library
from adacd_cli.backends.llamacpp.model import BATCH, LlamaModel
from adacd_cli.backends.local import Done, LocalBackend
from adacd_cli.engine.backend import BASE, Capabilities, Extend, Logits, SequenceId, Weights
from adacd_cli.engine.model import LanguageModel

_PREFILL_CHUNK = 256  # prompt tokens in one forward; what runs beside them waits so long
_ROWS = 32  # tokens of different sequences in one call at most
_FIRST_CELLS, _SPARE_CELLS = 1024, 256
_FIRST_NUMBERS, _MOST_NUMBERS = 8, 256
# from so many cells on idle sequences make room before the pool grows: every token looks at all cells
_IDLE_CELLS = 4096
_SAMPLE = 16  # tokens that a sequence must have for its size to be measured
_NO_ROOM = 1


@dataclass(eq=False)
class LlamaSequence:
    """A sequence: what it was fed, how much of it has keys and values, and its number in the context."""

    pool: Pool
    ids: list[int] = field(default_factory=list)
    computed: int = 0
    number: int | None = None
    last_used: int = 0


_Token = tuple[LlamaSequence, int, bool]  # a token by its place, and whether its logits are wanted


class Pool:
    """One context of llama.cpp for a model."""

    def __init__(self, model: LlamaModel) -> None:
        self._model, self._api = model, library()
        self._context = self._memory = 0
        self._free: Callable[[], object] = lambda: None
        self._cells = 0
        self._members: list[LlamaSequence | None] = []
        self._clock = itertools.count(1)
        self._bytes_per_token: int | None = None
        self._tokens, self._positions = (c_int32 * BATCH)(), (c_int32 * BATCH)()
        self._numbers, self._counts = (c_int32 * BATCH)(), (c_int32 * BATCH)(*[1] * BATCH)
        self._wanted = (c_int8 * BATCH)()
        start = ctypes.addressof(self._numbers)
        self._number_pointers = (c_void_p * BATCH)(*(start + 4 * place for place in range(BATCH)))
        self._batch = Batch(
            token=ctypes.addressof(self._tokens),
            pos=ctypes.addressof(self._positions),
            n_seq_id=ctypes.addressof(self._counts),
            seq_id=ctypes.addressof(self._number_pointers),
            logits=ctypes.addressof(self._wanted),
        )

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of a token; 0 where a sequence is a running state."""
        if self._bytes_per_token is None and self._model.keys_only:
            sample = LlamaSequence(self, [0] * _SAMPLE)
            longest = max(filter(None, self._members), key=lambda each: each.computed, default=sample)
            if longest.computed < _SAMPLE:
                self.compute([(sample, 0)])
                longest = sample
            size = self._api.llama_state_seq_get_size(self._context, longest.number)
            self._bytes_per_token = -(-size // longest.computed)
            self.close(sample)
        return self._bytes_per_token or 0

    def fork(self, source: LlamaSequence, length: int) -> LlamaSequence:
        fork = LlamaSequence(self, source.ids[:length])
        shared = min(length, source.computed)
        if shared and source.number is not None and self._model.keys_only:
            self._number(fork, keep=(source,))
            self._api.llama_memory_seq_cp(self._memory, source.number, fork.number, 0, shared)
            fork.computed = shared
        return fork

    def trim(self, sequence: LlamaSequence, length: int) -> None:
        del sequence.ids[length:]
        if sequence.number is not None and length < sequence.computed:
            cut = self._api.llama_memory_seq_rm(self._memory, sequence.number, length, -1)
            if cut:
                sequence.computed = length
            else:
                self.close(sequence)

    def compute(self, work: Sequence[tuple[LlamaSequence, int]]) -> torch.Tensor:
        """Computes what the sequences lack, and gives the logits of as many of their last tokens as are wanted,
        float32 [wanted, vocab], in order. MemoryError where there is no room; RuntimeError in llama.cpp's words."""
        sequences = [sequence for sequence, _ in work]
        if not self._context:
            needed = sum(len(sequence.ids) for sequence in sequences)
            self._grow(max(_FIRST_CELLS, needed + _SPARE_CELLS), _FIRST_NUMBERS)
        now = next(self._clock)
        for sequence in sequences:
            sequence.last_used = now
            self._number(sequence, keep=sequences)
        calls: list[list[_Token]] = [[]]
        for sequence, wanted in work:
            end = len(sequence.ids)
            tokens = [(sequence, place, place >= end - wanted) for place in range(sequence.computed, end)]
            # A prompt is read by itself, for llama.cpp rounds attention otherwise where many tokens are in a
            # call: so a request's tokens do not depend on what runs beside it.
            if len(tokens) + len(calls[-1]) > _ROWS:
                calls.append([])
            calls[-1] += tokens[:BATCH]
            calls += [tokens[at : at + BATCH] for at in range(BATCH, len(tokens), BATCH)]
        found = [self._decode(tokens, sequences) for tokens in calls if tokens]
        return torch.cat(found) if len(found) != 1 else found[0]

    def _decode(self, tokens: list[_Token], keep: Collection[LlamaSequence]) -> torch.Tensor:
        count = self._batch.n_tokens = len(tokens)
        self._tokens[:count] = [sequence.ids[place] for sequence, place, _ in tokens]
        self._positions[:count] = [place for _, place, _ in tokens]
        self._numbers[:count] = [sequence.number or 0 for sequence, _, _ in tokens]
        self._wanted[:count] = [wanted for _, _, wanted in tokens]
        with self._api.errors() as errors:
            while (code := self._api.llama_decode(self._context, self._batch)) == _NO_ROOM:
                self._make_room(keep)
        if code:
            raise RuntimeError(" ".join(errors).strip() or f"llama_decode failed with {code}")
        for sequence, place, _ in tokens:
            sequence.computed = place + 1
        rows, vocab = sum(wanted for _, _, wanted in tokens), self._model.vocab_size
        if not rows:
            return torch.empty(0, vocab)
        values = (ctypes.c_float * (rows * vocab)).from_address(self._api.llama_get_logits(self._context))
        return torch.frombuffer(values, dtype=torch.float32).view(rows, vocab).clone()

    # --- room ---

    def _number(self, sequence: LlamaSequence, keep: Collection[LlamaSequence]) -> None:
        if sequence.number is not None:
            return
        if None not in self._members:
            if len(self._members) < _MOST_NUMBERS:
                self._grow(self._cells, 2 * len(self._members))
            elif not self._release_idle(keep):
                raise MemoryError(f"not enough memory: llama.cpp has {_MOST_NUMBERS} sequences at most")
        sequence.number = self._members.index(None)
        self._members[sequence.number] = sequence

    def _make_room(self, keep: Collection[LlamaSequence]) -> None:
        if self._cells >= _IDLE_CELLS and self._release_idle(keep):
            return
        free, needed = self._model.free_memory(), self._cells * (self._bytes_per_token or 0)
        if free is None or 3 * needed < free:  # twice as many cells, and a copy while they are moved
            self._grow(2 * self._cells, len(self._members))
        elif not self._release_idle(keep):
            raise MemoryError(f"not enough memory for more than {self._cells} tokens")

    def _release_idle(self, keep: Collection[LlamaSequence]) -> bool:
        idle = [each for each in self._members if each is not None and each not in keep]
        if idle:
            self.close(min(idle, key=lambda each: each.last_used))
        return bool(idle)

    def close(self, sequence: LlamaSequence) -> None:
        if sequence.number is not None:
            self._api.llama_memory_seq_rm(self._memory, sequence.number, -1, -1)
            self._members[sequence.number] = None
            sequence.number = None
        sequence.computed = 0

    def _grow(self, cells: int, numbers: int) -> None:
        """Moves everything into a context with more cells, or room for more sequences."""
        cells, numbers, api = -(-cells // _SPARE_CELLS) * _SPARE_CELLS, min(numbers, _MOST_NUMBERS), self._api
        params = self._model.context_params(cells, numbers)
        with api.errors() as errors:
            context = api.llama_init_from_model(self._model.handle, params)
        if not context:
            raise MemoryError(f"not enough memory: {' '.join(errors).strip() or 'llama.cpp made no context'}")
        if self._context:
            size = api.llama_state_get_size(self._context)
            state = (c_int8 * size)()
            api.llama_state_get_data(self._context, ctypes.addressof(state), size)
            api.llama_state_set_data(context, ctypes.addressof(state), size)
            self._free()
        self._context, self._memory = context, api.llama_get_memory(context)
        # the model lives till then
        self._free = weakref.finalize(self, lambda model: api.llama_free(context), self._model)
        self._cells = cells
        self._members += [None] * (numbers - len(self._members))


class LlamaCppBackend(LocalBackend):
    """See `engine.backend.Backend`; the model's `model`, and its draft's, is a `LlamaModel`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        own: LlamaModel = model.model
        self.capabilities = Capabilities(
            device=torch.device("cpu"),
            vocab_size=own.vocab_size,
            context_length=model.context_length,
            fork=own.keys_only,
            trim=own.keys_only,
            prefill_chunk=_PREFILL_CHUNK,
        )
        self._pools: dict[Weights, Pool] = {}
        self._sequences: dict[SequenceId, LlamaSequence] = {}
        self._ids = itertools.count(1)

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        """A new sequence; a fork shares the cells of the other's first tokens."""
        pool = self._pool(weights)
        if like is None or length == 0:
            sequence = LlamaSequence(pool)
        else:
            source = self._sequences[like]
            assert source.pool is pool, "only sequences of the same weights can be forked"
            sequence = self._guarded(lambda: pool.fork(source, length))
        number = next(self._ids)
        self._sequences[number] = sequence
        return number

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        """True: llama.cpp chooses RoPE's factors when a context is made."""
        self._pool(weights)
        return True

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        return self._sequences[sequence].ids

    def trim(self, sequence: SequenceId, length: int) -> None:
        own = self._sequences[sequence]
        if length < len(own.ids):
            own.pool.trim(own, length)

    def close(self, sequences: Sequence[SequenceId]) -> None:
        for number in sequences:
            if (own := self._sequences.pop(number, None)) is not None:
                own.pool.close(own)

    def _forward(self, work: Sequence[Extend]) -> list[Done]:
        found: list[Done] = [Done(None)] * len(work)
        places: dict[Pool, list[int]] = {}
        for place, extend in enumerate(work):
            own = self._sequences[extend.sequence]
            own.ids += map(int, extend.tokens)
            places.setdefault(own.pool, []).append(place)
        for pool, own_places in places.items():
            wanted = [work[place].need.positions for place in own_places]
            sequences = [self._sequences[work[place].sequence] for place in own_places]
            logits = pool.compute(list(zip(sequences, wanted, strict=True)))
            alone, row = max(wanted) > 1, 0
            for place, count in zip(own_places, wanted, strict=True):
                if count:
                    part = logits[None, row : row + count] if alone else logits[:, None]
                    found[place] = Done(Logits(part, 0 if alone else row))
                row += count
        return found

    def bytes_for(self, tokens: int) -> int:
        return tokens * self._pool(BASE).bytes_per_token

    def _pool(self, weights: Weights) -> Pool:
        if weights not in self._pools:
            self._pools[weights] = Pool(self.model.weights(weights))
        return self._pools[weights]
