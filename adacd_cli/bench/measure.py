"""Contestants take turns, batch size after batch size; what they took becomes rows. Every contestant runs once to
warm up, which is also when its peak memory is read, and then in turn, A B A B, so that whatever slows the machine
slows them alike. What was measured stays when a run fails or is stopped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from adacd_cli.answers import never
from adacd_cli.backends import backend_for
from adacd_cli.bench.device import PeakMemory, synchronize
from adacd_cli.bench.subject import PromptMaker
from adacd_cli.config import Settings
from adacd_cli.config.methods import METHODS
from adacd_cli.counting import counted
from adacd_cli.engine import LanguageModel, Request, Scheduler
from adacd_cli.engine.memory import is_out_of_memory
from adacd_cli.errors import AdacdError, OutOfMemoryError
from adacd_cli.events import Failed, TokenStep
from adacd_cli.loading.hardware import check_memory
from adacd_cli.profiles.store import applied
from adacd_cli.prompts import Prompts

if TYPE_CHECKING:
    import torch

# what a model's engine is measured against: the plain decoding of its own library
RIVALS = {"torch": "transformers", "llamacpp": "llamacpp"}
_SMALLER = "Lower --batch-size, --prompt-tokens or --generation-tokens."


@dataclass(frozen=True, slots=True)
class Timing:
    """One run over a batch, in seconds."""

    seconds: float
    first_token_s: float  # when anyone sees the first token of it
    prefill_s: float  # what the first tokens of all requests took: most of it is reading the prompts

    @property
    def decode_s(self) -> float:
        return self.seconds - self.prefill_s


def time_decode(model: LanguageModel, prompts: Sequence[Prompts], settings: Settings) -> Timing:
    """Decodes a batch to its end, on a model that no token ends. AdacdError where a request failed or there were
    not as many tokens; MemoryError where the batch did not fit as a whole."""
    scheduler = Scheduler(backend_for(model), max_concurrency=len(prompts))
    tokens, prefill, first = 0, 0.0, 0.0
    synchronize(model.device)
    begin = last = time.perf_counter()
    scheduler.submit_all([Request(each, settings) for each in prompts])
    for event in scheduler.run(never):
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
    """As `time_decode`, by transformers' `generate`, greedy, with its default cache, over prompts of one length."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    read: list[float] = []

    def note(input_ids: Any, scores: Any) -> Any:
        if not read:  # the prompts just were; costs a comparison a step
            synchronize(model.device)
            read.append(time.perf_counter())
        return scores

    asked = GenerationConfig(do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)
    # generate takes whatever is not given from the model's own config, such as the end of an answer
    own, model.generation_config = model.generation_config, asked
    try:
        synchronize(model.device)
        begin = time.perf_counter()
        ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
        own_steps = {"generation_config": asked, "logits_processor": LogitsProcessorList([note])}
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), **own_steps)
        synchronize(model.device)
        seconds = time.perf_counter() - begin
    finally:
        model.generation_config = own
    _check_count((answer.shape[1] - ids.shape[1]) * len(prompts), new_tokens * len(prompts), "transformers")
    first = read[0] - begin
    return Timing(seconds, first, first)


def time_llamacpp(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> Timing:
    """Runs llama.cpp's own plain decoding, greedy, over prompts one after the other."""
    from adacd_cli.backends.llamacpp.model import decode_greedily

    prefill, firsts = 0.0, []
    begin = time.perf_counter()
    for ids in prompts:
        own = time.perf_counter()
        decode_greedily(model, ids, new_tokens, lambda: firsts.append(time.perf_counter()))
        prefill += firsts[-1] - own
    return Timing(time.perf_counter() - begin, firsts[0] - begin, prefill)


def _check_count(tokens: int, wanted: int, name: str) -> None:
    if tokens != wanted:
        what = f"{name} gave {counted(tokens, 'token')} and not {wanted}, so its times say nothing."
        raise AdacdError(what, "Try fewer --generation-tokens.")


@dataclass(frozen=True)
class Contestant:
    """What is measured: a method, or a rival, which has no settings."""

    name: str
    settings: Settings | None
    prepare: Callable[
        [int], Callable[[], Timing]
    ]  # makes a batch's prompts, untimed, and gives what runs over them
    row_bytes: int  # keys and values of a request, and its logits in float32, at least


def of_method(
    model: LanguageModel, settings: Settings, prompts: PromptMaker, prompt_tokens: int
) -> Contestant:
    fed = min(METHODS[settings.effective_method].window(settings), settings.max_new_tokens)
    positions = prompt_tokens + settings.max_new_tokens + (prompt_tokens + fed if fed else 0)
    used = applied(settings, model.profile)

    def prepare(batch: int) -> Callable[[], Timing]:
        made = prompts.make(used, batch)
        return lambda: time_decode(model, made, used)

    return Contestant(settings.method_label, settings, prepare, _row_bytes(model, positions))


def of_rival(
    model: LanguageModel, settings: Settings, prompts: PromptMaker, prompt_tokens: int
) -> Contestant:
    """The plain decoding of the engine's own library, over Default's prompts."""
    default = settings.model_copy(update={"method": "default"})
    run = time_llamacpp if model.engine == "llamacpp" else time_generate

    def prepare(batch: int) -> Callable[[], Timing]:
        ids = [each.base.ids for each in prompts.make(default, batch)]
        return lambda: run(model.model, ids, default.max_new_tokens)

    row_bytes = _row_bytes(model, prompt_tokens + default.max_new_tokens)
    return Contestant(RIVALS[model.engine], None, prepare, row_bytes)


def _row_bytes(model: LanguageModel, positions: int) -> int:
    of = model.model if model.engine == "llamacpp" else model.model.config.get_text_config(decoder=True)
    return backend_for(model).bytes_for(positions) + 4 * int(of.vocab_size)


@dataclass
class Measurements:
    """What was measured so far, of the contestants in the order of the rows."""

    contestants: Sequence[Contestant]
    device: torch.device
    prompt_tokens: int
    generation_tokens: int
    weight_bytes: int | None
    bandwidth: float = 0.0  # GB a second, set before `rows` is asked for
    _timings: dict[tuple[int, str], list[Timing]] = field(default_factory=dict, init=False)
    _peaks: dict[tuple[int, str], int | None] = field(default_factory=dict, init=False)

    def check_memory(self, batch: int) -> None:
        """Refuses a batch whose caches alone cannot fit (OutOfMemoryError, which names the batch size)."""
        needed = batch * max(contestant.row_bytes for contestant in self.contestants)
        check_memory(f"A batch of {batch} needs at least", needed, self.device, _SMALLER)

    def measure(
        self, batch_sizes: Sequence[int], trials: int, progress: Callable[[str], None] = lambda line: None
    ) -> None:
        """Times so many runs of every contestant at every batch size, after one that is not timed.
        OutOfMemoryError, which names the batch size, where one does not fit."""
        memory = PeakMemory(self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # generate's, about what nobody here chose
            for batch in batch_sizes:
                self.check_memory(batch)
                try:
                    self._measure_batch(batch, trials, memory, progress)
                except Exception as error:
                    if not is_out_of_memory(error) and not isinstance(error, OutOfMemoryError):
                        raise
                    message = f"There is not enough memory for a batch of {batch}."
                    raise OutOfMemoryError(message, _SMALLER) from error

    def _measure_batch(
        self, batch: int, trials: int, memory: PeakMemory, progress: Callable[[str], None]
    ) -> None:
        runs = {contestant.name: contestant.prepare(batch) for contestant in self.contestants}
        for name, run in runs.items():
            progress(f"batch of {batch}, {name}: warming up")
            memory.reset()
            run()
            self._peaks[batch, name] = memory.read()
        for trial in range(trials):
            for name, run in runs.items():
                progress(f"batch of {batch}, {name}: trial {trial + 1} of {trials}")
                timing = run()  # before there is a place for it, as Ctrl-C may come
                self._timings.setdefault((batch, name), []).append(timing)

    def rows(self) -> list[dict[str, Any]]:
        """A row of JSON values for each contestant and batch size that was timed. Times are medians; rates and
        ratios are made of those. The ratios divide a whole run, `seconds`, by that of others at the same batch
        size; `ms_per_token` is how long every request of the batch waits for one token more, after its first."""
        sizes = dict.fromkeys(batch for batch, _ in self._timings)
        pairs = [(batch, contestant) for batch in sizes for contestant in self.contestants]
        return [self._row(batch, each) for batch, each in pairs if (batch, each.name) in self._timings]

    def _row(self, batch: int, contestant: Contestant) -> dict[str, Any]:
        def times(part: str, name: str = contestant.name) -> list[float]:
            return [getattr(each, part) for each in self._timings.get((batch, name), ())]

        seconds, first, decoding = times("seconds"), times("first_token_s"), times("decode_s")
        steps, bases = self.generation_tokens - 1, ("default", *RIVALS.values())
        step = median(decoding) / steps if steps else None
        read = self.weight_bytes / step / 1e9 if self.weight_bytes and step else None
        return {
            "method": contestant.name,
            "batch_size": batch,
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.generation_tokens,
            "trials": len(seconds),
            "prefill_tokens_per_s": batch * self.prompt_tokens / median(times("prefill_s")),
            "decode_tokens_per_s": batch / step if step else None,
            "ms_per_token": 1000 * step if step else None,
            "ms_per_token_range": [1000 * end(decoding) / steps for end in (min, max)] if steps else None,
            "first_token_s": median(first),
            "first_token_s_range": [min(first), max(first)],
            "seconds": median(seconds),
            "seconds_range": [min(seconds), max(seconds)],
            **{
                f"ratio_to_{name}": median(seconds) / median(base)
                if (base := times("seconds", name))
                else None
                for name in bases
            },
            "weights_gb_per_s": read,
            "bandwidth_share": read / self.bandwidth if read else None,
            "peak_memory_bytes": self._peaks[batch, contestant.name],
            "settings": None if contestant.settings is None else contestant.settings.decoding(),
        }
