"""TorchBackend: sequences over a transformers model in this process.

Sequences that are decoded side by side are rows of one batch; one that is not extended in a step is moved out of
it, and costs nothing until it is forked or goes on. A prompt's chunk is a batch of its own."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from adacd_cli.backends.local import Done, LocalBackend
from adacd_cli.backends.torch.batch import BatchedKVCache, KeyValues
from adacd_cli.backends.torch.kv_cache import (
    GrowingLayer,
    Rope,
    new_cache,
    rope_of,
    text_config_of,
    uncompiled,
)
from adacd_cli.engine.backend import BASE, Capabilities, Extend, Logits, SequenceId, Weights
from adacd_cli.engine.model import LanguageModel

_PREFILL_CHUNK = {"cpu": 512}
_PREFILL_CHUNK_ELSEWHERE = 4096  # prompt tokens in one forward: enough for it to be efficient
# on a CPU padding costs as much as tokens: this share of a prefill may be padding, and so many tokens
_PADDING, _FEW_TOKENS = 0.25, 64


@dataclass(eq=False)
class _Sequence:
    """What a sequence was fed. Its keys and values are a row of `batch`, or `stored` by themselves; in neither
    place where nothing was fed yet, or where they have to be computed anew from `ids`."""

    weights: Weights
    ids: list[Any] = field(default_factory=list)  # a tensor of one id where the host has not seen it yet
    batch: _Batch | None = None
    stored: KeyValues | None = None

    def known_ids(self) -> list[int]:
        self.ids = [each if isinstance(each, int) else int(each) for each in self.ids]
        return self.ids

    @property
    def computed(self) -> bool:
        """Whether there are keys and values of everything that was fed."""
        return self.batch is not None or self.stored is not None

    def copy(self, tokens: int) -> KeyValues | None:
        """Keys and values of the first tokens; None where they cannot be copied or are not there."""
        if self.batch is not None:
            cache, row = self.batch.cache, self.batch.members.index(self)
            return cache.copy_row(row, tokens) if cache.joins else None
        if self.stored is None:
            return None
        return [(keys[:, :, :tokens].clone(), values[:, :, :tokens].clone()) for keys, values in self.stored]


class _Batch:
    def __init__(self, cache: BatchedKVCache, members: Sequence[_Sequence]) -> None:
        self.cache, self.members = cache, list(members)
        for member in members:
            member.batch, member.stored = self, None

    def take_out(self, leaving: Iterable[_Sequence], *, store: bool) -> None:
        """Removes members; their keys and values are stored by themselves, or dropped."""
        leaving = list(leaving)
        for member in leaving:
            member.stored = member.copy(len(member.ids)) if store else None
            member.batch = None
        rows = [row for row, member in enumerate(self.members) if member not in leaving]
        self.cache.keep(rows)
        self.members = [self.members[row] for row in rows]


class TorchBackend(LocalBackend):
    """Computes with a model of this process; see `engine.backend.Backend`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        device = model.device
        layers = getattr(new_cache(model.model), "layer_class_to_replicate", None)
        self._keys_only = layers is GrowingLayer  # that can be copied, joined and cut
        chunk = _PREFILL_CHUNK.get(device.type, _PREFILL_CHUNK_ELSEWHERE)
        self.capabilities = Capabilities(
            device=device,
            vocab_size=getattr(text_config_of(model.model), "vocab_size", None),
            context_length=model.context_length,
            fork=self._keys_only,
            trim=self._keys_only,
            run_ahead=device.type == "cuda" and not rope_of(model.model).borders,
            prefill_chunk=chunk if self._keys_only else None,
        )
        self._sequences: dict[SequenceId, _Sequence] = {}
        self._opened = 0
        self._bytes_per_token: int | None = None
        self._ropes: dict[Weights, Rope] = {}

    def open(self, weights: Weights = BASE, *, like: SequenceId | None = None, length: int = 0) -> SequenceId:
        self.model.weights(weights)
        sequence = _Sequence(weights)
        if like is not None and length > 0:
            source = self._sequences[like]
            assert source.weights == weights, "only sequences of the same weights can be forked"
            sequence.ids = source.ids[:length]
            sequence.stored = self._guarded(lambda: source.copy(length))
        self._opened += 1
        self._sequences[self._opened] = sequence
        return self._opened

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        return self._rope(weights).alike(first, second)

    def tokens(self, sequence: SequenceId) -> Sequence[int]:
        return self._sequences[sequence].known_ids()

    def trim(self, sequence: SequenceId, length: int) -> None:
        """Takes back all but the first `length` tokens; a running state is computed anew when it goes on."""
        own = self._sequences[sequence]
        spare, rope = len(own.ids) - length, self._rope(own.weights)
        if spare <= 0:
            return
        if own.batch is not None and len(own.batch.members) > 1 and self._keys_only:
            own.batch.take_out([own], store=True)
        turned = rope.side(len(own.ids)) != rope.side(length)
        own.ids = own.ids[:length]
        if turned or length == 0:
            self._drop(own)
        elif own.stored is not None:
            own.stored = [(keys[:, :, :length], values[:, :, :length]) for keys, values in own.stored]
        elif own.batch is not None and not (len(own.batch.members) == 1 and own.batch.cache.trim(spare)):
            self._drop(own)

    def close(self, sequences: Sequence[SequenceId]) -> None:
        closed = [own for each in sequences if (own := self._sequences.pop(each, None)) is not None]
        for batch in {id(own.batch): own.batch for own in closed if own.batch is not None}.values():
            batch.take_out([own for own in closed if own.batch is batch], store=False)

    def bytes_for(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens; before any was fed, one is, to find out."""
        if not self._keys_only:
            return 0
        if self._bytes_per_token is None:
            cache = BatchedKVCache(self.model.model)
            cache.feed([0], 1)
            self._bytes_per_token = cache.bytes_per_token
        return tokens * self._bytes_per_token

    def notices(self) -> list[str]:
        """That compiled forwards had to be given up, once."""
        compiled = self.model.compiled
        if compiled is None or not compiled.problem or compiled.told:
            return []
        compiled.told = True
        return [uncompiled(self.model.name, compiled.problem)]

    # --- one step ---

    def _forward(self, work: Sequence[Extend]) -> list[Done]:
        groups: dict[tuple[bool, Weights, Hashable], list[tuple[_Sequence, Extend]]] = {}
        for extend in work:
            own = self._sequences[extend.sequence]
            rope = self._rope(own.weights)
            after = rope.side(len(own.ids) + len(extend.tokens))
            if own.computed and rope.side(len(own.ids)) != after:
                self._drop(own)  # with this token all before it have other keys
            single = own.computed and len(extend.tokens) == 1 and extend.need.positions == 1
            groups.setdefault((single, own.weights, after), []).append((own, extend))
        found: dict[SequenceId, Done] = {}
        for (single, _, _), group in groups.items():
            for part in [group] if single else self._portions(group):
                for extend, done in (self._advance if single else self._prefill)(part):
                    found[extend.sequence] = done
        return [found[extend.sequence] for extend in work]

    def _advance(self, part: list[tuple[_Sequence, Extend]]) -> list[tuple[Extend, Done]]:
        given = {id(own): extend for own, extend in part}
        batches: list[_Batch] = []
        for own, _ in part:
            if own.batch is None:
                cache = self._cache(own.weights)
                assert own.stored is not None
                cache.begin(own.stored)
                batches.append(_Batch(cache, [own]))
            elif own.batch not in batches:
                batches.append(own.batch)
        results = []
        for batch in self._joined(batches, given):
            extends = [given[id(member)] for member in batch.members]
            tensors = [each.tokens for each in extends if isinstance(each.tokens, torch.Tensor)]
            ahead = len(tensors) == len(extends)  # the host has not seen the tokens yet
            tokens = torch.cat(tensors) if ahead else [int(each.tokens[0]) for each in extends]
            logits = batch.cache.advance(tokens)
            for row, (member, extend) in enumerate(zip(batch.members, extends, strict=True)):
                member.ids.append(extend.tokens[0])
                results.append((extend, Done(Logits(logits, row))))
        return results

    def _joined(self, batches: list[_Batch], given: dict[int, Extend]) -> list[_Batch]:
        """The batches without the members that are not extended now, joined where their caches can be."""
        whole: list[_Batch] = []
        for batch in batches:
            idle = [member for member in batch.members if id(member) not in given]
            if idle:
                batch.take_out(idle, store=True)
            if whole and whole[0].cache.joins and batch.cache.joins:
                whole[0].cache.join(batch.cache)
                whole[0].members += batch.members
                for member in batch.members:
                    member.batch = whole[0]
            else:
                whole.append(batch)
        return whole

    def _prefill(self, part: list[tuple[_Sequence, Extend]]) -> list[tuple[Extend, Done]]:
        positions = max(extend.need.positions for _, extend in part)
        first, extend = part[0]
        alone = first.batch is not None and len(first.batch.members) == 1 and first.batch.cache.joins
        if len(part) == 1 and alone:
            assert first.batch is not None
            logits = first.batch.cache.feed(_ids(extend), max(1, positions))
        else:
            texts = [[*own.known_ids(), *_ids(extend)] for own, extend in part]
            computed = [own.copy(len(own.ids)) if own.stored is None else own.stored for own, _ in part]
            cache = self._cache(first.weights)
            logits = cache.prefill(texts, computed, max(1, positions))
            for own, _ in part:
                self._drop(own)
            _Batch(cache, [own for own, _ in part])
            if self._bytes_per_token is None and cache.joins:
                self._bytes_per_token = cache.bytes_per_token
        results = []
        for row, (own, extend) in enumerate(part):
            own.ids += _ids(extend)
            results.append((extend, Done(Logits(logits, row) if extend.need.positions else None)))
        return results

    def _portions(self, group: list[tuple[_Sequence, Extend]]) -> list[list[tuple[_Sequence, Extend]]]:
        """Which sequences are prefilled in one forward: on a CPU those of about the same length."""
        if len(group) == 1 or self.model.device.type != "cpu":
            return [group]
        portions: list[list[tuple[_Sequence, Extend]]] = []
        new = {id(own): len(each.tokens) + (0 if own.computed else len(own.ids)) for own, each in group}
        tokens = 0
        for own, extend in sorted(group, key=lambda each: new[id(each[0])]):
            longest = new[id(own)]
            padding = len(portions[-1]) * longest - tokens if portions else 0
            if portions and padding <= _FEW_TOKENS + _PADDING * (tokens + longest):
                portions[-1].append((own, extend))
                tokens += longest
            else:
                portions.append([(own, extend)])
                tokens = longest
        return portions

    def _drop(self, own: _Sequence) -> None:
        """Frees a sequence's keys and values; what it was fed stays known."""
        if own.batch is not None:
            own.batch.take_out([own], store=False)
        own.stored = None

    def _cache(self, weights: Weights) -> BatchedKVCache:
        compiled = self.model.compiled if weights == BASE else None
        return BatchedKVCache(self.model.weights(weights), compiled)

    def _rope(self, weights: Weights) -> Rope:
        if weights not in self._ropes:
            self._ropes[weights] = rope_of(self.model.weights(weights))
        return self._ropes[weights]


def _ids(extend: Extend) -> list[int]:
    tokens = extend.tokens
    return tokens.tolist() if isinstance(tokens, torch.Tensor) else list(tokens)
