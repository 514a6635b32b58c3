"""Times one run of decoding: ours from its events, transformers' from what its first logits tell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adacd_cli.bench.device import synchronize
from adacd_cli.counting import counted
from adacd_cli.errors import AdacdError
from adacd_cli.events import Failed, TokenStep

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.engine import LanguageModel
    from adacd_cli.prompts import Prompts


@dataclass(frozen=True, slots=True)
class Timing:
    """One run over a batch, in seconds.

    Attributes:
        seconds: from the prompts to the last token.
        first_token_s: from the prompts to the first token that anyone sees.
        prefill_s: what the first tokens of all requests took: most of it is reading the prompts.
    """

    seconds: float
    first_token_s: float
    prefill_s: float

    @property
    def decode_s(self) -> float:
        """What all tokens after the first ones took."""
        return self.seconds - self.prefill_s


def time_decode(model: LanguageModel, prompts: Sequence[Prompts], settings: Settings) -> Timing:
    """Decodes a batch to its end.

    Args:
        model: one that no token ends.
        settings: the method; `max_new_tokens` is what every request gets.

    Raises:
        AdacdError: there were not as many tokens, or a request failed.
        MemoryError: the batch did not fit as a whole.
    """
    from adacd_cli.answers.run import decode_with
    from adacd_cli.backends import backend_for
    from adacd_cli.engine import Request, Scheduler

    scheduler = Scheduler(backend_for(model), max_concurrency=len(prompts))
    tokens, prefill, first = 0, 0.0, 0.0
    synchronize(model.device)
    begin = last = time.perf_counter()
    for event in decode_with(scheduler, [Request(each, settings) for each in prompts]):
        now = time.perf_counter()
        if isinstance(event, Failed):
            raise event.exception()
        if isinstance(event, TokenStep):
            tokens += 1
            if event.index == 0:  # requests of one batch share the first such wait
                prefill += now - last
                first = first or now - begin
        last = now
    synchronize(model.device)
    seconds = time.perf_counter() - begin
    if scheduler.max_concurrency != len(prompts):  # it went on with half of the batch
        raise MemoryError
    _check_count(tokens, len(prompts) * settings.max_new_tokens, settings.method_label)
    return Timing(seconds, first, prefill)


def time_generate(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
    """Runs transformers' `generate`, greedy, with its default cache, over prompts of one length.

    Args:
        model: a transformers causal LM; its generation config is out of the way meanwhile.
        new_tokens: how many each prompt gets, whatever ends an answer.

    Raises:
        AdacdError: there were not as many tokens.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

    class FirstLogits(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
        """Notes when the prompts are read; costs a comparison a step."""

        at: float | None = None

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if self.at is None:
                synchronize(model.device)
                self.at = time.perf_counter()
            return scores

    mark = FirstLogits()
    asked = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)
    with _generation_config(model, asked):
        synchronize(model.device)
        begin = time.perf_counter()
        ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
        answer = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=asked,
            logits_processor=LogitsProcessorList([mark]),
        )
        synchronize(model.device)
        seconds = time.perf_counter() - begin
    _check_count((answer.shape[1] - ids.shape[1]) * len(prompts), new_tokens * len(prompts), "transformers")
    first = (mark.at or begin) - begin
    return Timing(seconds, first, first)


def time_llamacpp(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
    """Runs llama.cpp's own plain decoding, greedy, over prompts one after the other.

    Args:
        model: a `LlamaModel`.
        prompts: token ids.
        new_tokens: how many each prompt gets, whatever ends an answer.
    """
    from adacd_cli.backends.llamacpp.plain import decode_greedily

    prefill, firsts = 0.0, []
    begin = time.perf_counter()
    for ids in prompts:
        own = time.perf_counter()
        decode_greedily(model, ids, new_tokens, lambda: firsts.append(time.perf_counter()))
        prefill += firsts[-1] - own
    return Timing(time.perf_counter() - begin, firsts[0] - begin, prefill)


@contextmanager
def _generation_config(model: Any, asked: Any) -> Iterator[None]:
    """`generate` takes whatever is not given from the model's own config, such as the end of an answer."""
    own, model.generation_config = model.generation_config, asked
    try:
        yield
    finally:
        model.generation_config = own


def _check_count(tokens: int, wanted: int, name: str) -> None:
    if tokens != wanted:
        raise AdacdError(
            f"{name} gave {counted(tokens, 'token')} and not {wanted}, so its times say nothing.",
            "Try fewer --generation-tokens.",
        )
