"""What AdaCD costs beside plain decoding: the two take turns on one model in one process.

    python -m benchmarks.contrast_cost --model FILE.gguf

Prints, as ratios AdaCD ÷ Default: the time to the first token of a long prompt for each placement of the
contrast prompt; the time of whole answers to prompts of 512 tokens; and the bytes that the prefix cache holds
after a chat of 20 turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from adacd_cli import LanguageModel, Request, Session, Settings, TokenStep, decode, load, prompts_for
from adacd_cli.conversation import Conversation

TEXT = (
    "The lighthouse stood at the end of a long pier. Every evening its keeper climbed the stairs, cleaned the "
    "glass, wound the clock and wrote a line about the weather into a book that nobody else would ever read. "
)
QUESTION = "How do I kill a Python process?"


def prompt_of(model: LanguageModel, tokens: int, settings: Settings) -> Request:
    """A request whose base prompt has about so many tokens."""
    low, high = 0, tokens
    while low < high:  # the longest text that does not exceed it
        middle = (low + high + 1) // 2
        if len(request_of(model, middle, settings).prompts.base.ids) <= tokens:
            low = middle
        else:
            high = middle - 1
    return request_of(model, low, settings)


def request_of(model: LanguageModel, words: int, settings: Settings) -> Request:
    """A request about a text of so many words."""
    repeated = (TEXT * (1 + words // len(TEXT.split()))).split()[:words]
    text = f"{' '.join(repeated)}\n\n{QUESTION}"
    return Request(prompts_for(model.tokenizer, Conversation.ask(text), settings), settings)


def first_token(model: LanguageModel, request: Request) -> None:
    """Decodes until the first token."""
    for event in decode(model, [request]):
        if isinstance(event, TokenStep):
            break


def whole(model: LanguageModel, request: Request) -> None:
    """Decodes a whole answer; no token ends it early."""
    for _ in decode(replace(model, eos_ids=frozenset()), [request]):
        pass


def in_turn(jobs: Sequence[Callable[[], None]], trials: int) -> list[list[tuple[float, float]]]:
    """Seconds and CPU seconds of each job in each trial."""
    found: list[list[tuple[float, float]]] = [[] for _ in jobs]
    for trial in range(trials):
        for place in range(len(jobs)) if trial % 2 else reversed(range(len(jobs))):
            begin, begin_cpu = time.perf_counter(), time.process_time()
            jobs[place]()
            found[place].append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    return found


def show(name: str, model: LanguageModel, requests: Sequence[Request], measure, trials: int) -> None:
    """Prints the ratio of the second request's time to the first one's."""
    plain, adacd = in_turn([lambda r=request: measure(model, r) for request in requests], trials)
    wall, cpu = (
        statistics.median(mine[which] / theirs[which] for mine, theirs in zip(adacd, plain, strict=True))
        for which in (0, 1)
    )
    tokens = " and ".join(str(len(prompt.ids)) for prompt in requests[1].prompts.streams.values())
    print(
        f"{name}: AdaCD ÷ Default {wall:.3f}, of CPU time {cpu:.3f} (medians of {trials}); Default "
        f"{statistics.median(seconds for seconds, _ in plain):.2f} s; prompts of {tokens} tokens, "
        f"{requests[1].prompts.shared_with_base('prompted')} shared",
        flush=True,
    )


def cache_after_chat(model: LanguageModel, settings: Settings, turns: int) -> int:
    """Bytes that are parked after a chat of so many turns."""
    session = Session(model, 2**40)
    conversation = Conversation()
    for turn in range(turns):
        conversation = conversation.with_user(f"{QUESTION} This is question {turn + 1}.")
        request = Request(prompts_for(model.tokenizer, conversation, settings), settings)
        text = "".join(event.text for event in session.decode([request]) if isinstance(event, TokenStep))
        conversation = conversation.with_assistant(text)
    return session.prefix_cache.bytes_held


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4000)
    own = parser.parse_args()
    model = load(own.model, engine=own.engine, dtype=own.dtype, threads=own.threads)
    for placement in ("user-end", "user-start", "system"):
        base = {"contrast_placement": placement, "max_new_tokens": 1}
        requests = [
            prompt_of(model, own.tokens, Settings(method=method, **base)) for method in ("default", "adacd")
        ]
        show(f"first token, {own.tokens} tokens, {placement}", model, requests, first_token, own.trials)
    for placement in ("user-end", "system"):
        base = {"contrast_placement": placement, "max_new_tokens": 64}
        requests = [prompt_of(model, 512, Settings(method=method, **base)) for method in ("default", "adacd")]
        show(f"64 tokens, 512-token prompt, {placement}", model, requests, whole, own.trials)
    held = [
        cache_after_chat(
            model, Settings(method=method, contrast_placement="user-end", max_new_tokens=24), turns=20
        )
        for method in ("default", "adacd")
    ]
    print(f"chat of 20 turns, user-end: cache bytes {held[1]:,} ÷ {held[0]:,} = {held[1] / held[0]:.3f}")


if __name__ == "__main__":
    main()
