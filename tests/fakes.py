"""A model whose logits are a script and a tokenizer whose ids are bytes: engine tests without weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from adacd_cli.backends import backend_for
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.engine import LanguageModel, Request, Scheduler
from adacd_cli.engine.backend import BASE, Capabilities, Extend, Logits, SampledToken, Sampling, Weights
from adacd_cli.errors import ModelError
from adacd_cli.prompts import Contrast, Prompt, Prompts, ThinkingMarks

Script = Callable[[tuple[int, ...]], Sequence[float]]

BYTE_VOCAB = 260
BYTE_EOS = 256
THINK, END_THINK = 257, 258


class ByteTokenizer:
    """Id n is byte n; 256 ends the turn; 257 and 258 are the thinking tags, kept in the text."""

    names = {BYTE_EOS: "<|end|>", THINK: "<think>", END_THINK: "</think>", 259: "<|unused|>"}

    def __len__(self) -> int:
        return BYTE_VOCAB

    def decode(
        self,
        ids: Sequence[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool = False,
    ) -> str:
        parts: list[str] = []
        pending = bytearray()
        for token_id in [*ids, None]:
            if token_id is not None and token_id < 256:
                pending.append(token_id)
                continue
            parts.append(pending.decode("utf-8", errors="replace"))
            pending.clear()
            if token_id in (THINK, END_THINK) or (token_id is not None and not skip_special_tokens):
                parts.append(self.names[token_id])
        return "".join(parts)


class ScriptedModel:
    """Called like a transformers model. What it is fed it keeps in the cache, so rewinding and dropping rows
    is seen by the script: each row's logits are `script(ids the row has been fed, padding left out)`."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[tuple[int, int]] = []
        """(rows, new tokens a row) of each forward."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> Any:
        self.calls.append(tuple(input_ids.shape))
        states = input_ids[:, None, :, None].float()
        fed, _ = past_key_values.update(states, states, 0)
        logits = []
        for row, ids in enumerate(fed[:, 0, :, 0].long().tolist()):
            seen = [1] * len(ids) if attention_mask is None else attention_mask[row].tolist()
            own = tuple(i for i, s in zip(ids, seen, strict=True) if s)
            ends = range(max(1, len(own) + 1 - (logits_to_keep or 1)), len(own) + 1)
            logits.append([list(self.script(own[:end])) for end in ends])
        return SimpleNamespace(logits=torch.tensor(logits, dtype=self.dtype))

    __call__ = forward


def scripted(script: Script, *, eos: int = BYTE_EOS, context: int | None = None) -> LanguageModel:
    """A LanguageModel over a script, with byte tokens."""
    return LanguageModel(
        model=ScriptedModel(script),
        tokenizer=ByteTokenizer(),
        name="scripted",
        revision=None,
        eos_ids=frozenset({eos}),
        context_length=context,
    )


class Done:
    """A result of `forward` that is there at once; an error is raised by `result`."""

    def __init__(self, found: Logits | Exception | None) -> None:
        self.found = found

    def done(self) -> bool:
        return True

    def result(self) -> Logits | None:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def cancel(self) -> None:
        """Nothing to end."""


class ScriptedRun:
    """A stretch that a script decodes greedily, a token each time it is asked."""

    def __init__(self, script: Script, ids: list[int], top: int, max_tokens: int) -> None:
        self._script, self._ids, self._top, self._left = script, ids, top, max_tokens

    def take(self) -> list[SampledToken]:
        if self.done():
            return []
        logprobs = torch.tensor(self._script(tuple(self._ids))).log_softmax(-1)
        best = logprobs.topk(self._top)
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        self._left = 0 if top[0][0] == BYTE_EOS else self._left - 1
        self._ids.append(top[0][0])
        return [SampledToken(*top[0], top)]

    def done(self) -> bool:
        return self._left == 0

    def close(self) -> None:
        self._left = 0


class ScriptedBackend:
    """The smallest backend: a sequence is its ids, and the logits after it are `script(ids)`.

    Args:
        script: of the base weights.
        extras: those of others.
        context, can: of the model, and of its capabilities.

    Attributes:
        sequences: those that are open, and what they were fed.
        forwards: (sequence, how many tokens) for all the work of each forward.
        failing: called before a forward with its number, to raise what it fails with.
    """

    def __init__(
        self, script: Script, extras: dict[Any, Script] | None = None, context: int | None = None, **can: Any
    ) -> None:
        self.model = replace(scripted(script, context=context), extras=extras or {})
        self.capabilities = Capabilities(torch.device("cpu"), **can)
        self.sequences: dict[int, list[int]] = {}
        self.forwards: list[list[tuple[int, int]]] = []
        self.failing: Callable[[int], None] = lambda number: None
        self._scripts, self._weights = {BASE: script, **(extras or {})}, {}

    def open(self, weights: Weights = BASE, *, like: int | None = None, length: int = 0) -> int:
        self.alike(weights, 0, 0)
        assert length == 0 or (self.capabilities.fork and self._weights[like] == weights)
        sequence = len(self._weights) + 1
        self._weights[sequence] = weights
        self.sequences[sequence] = self.sequences[like][:length] if length else []
        return sequence

    def alike(self, weights: Weights, first: int, second: int) -> bool:
        if weights not in self._scripts:
            raise ModelError(f"{weights} is not loaded.")
        return True

    def tokens(self, sequence: int) -> list[int]:
        return self.sequences[sequence]

    def trim(self, sequence: int, length: int) -> None:
        assert self.capabilities.trim
        del self.sequences[sequence][length:]

    def close(self, sequences: Sequence[int]) -> None:
        for sequence in sequences:
            self.sequences.pop(sequence, None)

    def forward(self, work: Sequence[Extend]) -> list[Done]:
        try:
            self.failing(len(self.forwards))
        except BaseException:
            self.sequences.clear()
            raise
        finally:
            self.forwards.append([(each.sequence, len(each.tokens)) for each in work])
        return [self._extended(each) for each in work]

    def _extended(self, extend: Extend) -> Done:
        ids, script = self.sequences[extend.sequence], self._scripts[self._weights[extend.sequence]]
        ids += map(int, extend.tokens)
        ends = range(len(ids) - extend.need.positions + 1, len(ids) + 1)
        rows = [list(script(tuple(ids[:end]))) for end in ends]
        return Done(Logits(torch.tensor([rows]), 0) if rows else None)

    def free_run(self, sequence: int, sampling: Sampling, max_tokens: int) -> ScriptedRun:
        script = self._scripts[self._weights[sequence]]
        return ScriptedRun(script, self.sequences[sequence], sampling.top, max_tokens)

    def wait(self, seconds: float) -> None:
        """Everything is done at once."""

    def bytes_for(self, tokens: int) -> int:
        return tokens

    def found_inexact(self) -> None:
        raise AssertionError("every logit is told")

    def notices(self) -> list[str]:
        return []


def saying(*answers: tuple[str, str], vocab: int = BYTE_VOCAB, sharp: float = 8.0) -> Script:
    """A script that continues a prompt (the text up to its last "\n") with its answer, then ends the turn.

    Args:
        answers: (end of the prompt, answer) pairs; the first whose end fits is taken.
        sharp: the logit of the scripted token; all others are 0.
    """
    spoken = [(prompt.encode(), [*answer.encode(), BYTE_EOS]) for prompt, answer in answers]

    def script(ids: tuple[int, ...]) -> list[float]:
        # a drawn answer may have a "\n" of its own
        ends = [index for index, token_id in enumerate(ids) if token_id == 10]
        place, answer = next(
            (place, answer)
            for place in reversed(ends)
            for end, answer in spoken
            if bytes(i for i in ids[:place] if i < 256).endswith(end)
        )
        said = ids[place + 1 :]
        logits = [0.0] * vocab
        logits[answer[min(len(said), len(answer) - 1)]] = sharp
        return logits

    return script


def contrasted(text: str) -> dict[str, Contrast | None]:
    """The streams of AdaCD, for `build_prompts`."""
    return {"unprompted": None, "prompted": Contrast(text)}


def two_streams(
    unprompted_ids: Sequence[int], prompted_ids: Sequence[int], thinking: ThinkingMarks | None = None
) -> Prompts:
    """The prompts of AdaCD's streams by their token ids."""
    return Prompts(
        {"unprompted": Prompt(tuple(unprompted_ids)), "prompted": Prompt(tuple(prompted_ids))}, thinking
    )


def request_for(prompts: Prompts, settings: Settings, **values: Any) -> Request:
    """A request; the streams of the prompts get the names of those of the settings' method."""
    return Request(named(prompts, settings), settings, **values)


def named(prompts: Prompts, settings: Settings) -> Prompts:
    """The same prompts, in order, under the names of the streams of the settings' method."""
    specs = METHODS[settings.effective_method].streams_for(settings)
    given = [*prompts.streams.values()]
    names = [spec.name for spec in specs]
    return replace(
        prompts, streams={name: given[min(place, len(given) - 1)] for place, name in enumerate(names)}
    )


def second(prompts: Prompts) -> Prompt:
    """The prompt of the stream after the base; the base's own where there is no other."""
    return [*prompts.streams.values()][:2][-1]


def decode(model, requests, *, prefix_cache=None, max_concurrency=None, cancelled=lambda index: False):
    """The events of requests by a scheduler of their own, all at once where nobody says otherwise."""
    scheduler = scheduler_of(model, prefix_cache=prefix_cache, max_concurrency=max_concurrency)
    scheduler.submit_all(requests)
    return scheduler.run(cancelled)


def scheduler_of(model: LanguageModel, **options: Any) -> Scheduler:
    """A scheduler over a new backend of the model."""
    return Scheduler(backend_for(model), **options)
