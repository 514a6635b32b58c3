"""What AdaCD costs over a server, beside plain requests to it and beside this machine's own engine.

    python benchmarks/served.py --url http://localhost:8080/v1 --tokenizer FILE.gguf [--local FILE.gguf]

Each trial asks every contestant a question of its own (the same but for a number, so that nobody finds the
other's prompt in the server's cache) and times the whole answer, prompt included; the medians are compared.
`--local` is decoded by adacd's torch engine with --threads threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import httpx

from adacd_cli import Settings
from adacd_cli.answers import decode
from adacd_cli.conversation import Conversation
from adacd_cli.engine import LanguageModel, Request
from adacd_cli.events import Finished, TokenStep
from adacd_cli.loading import load
from adacd_cli.prompts import prompts_for

QUESTION = "Write a long story about ship number {} and its crew."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--served-model")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--local")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    served = load(Settings(model=asked.url, served_model=asked.served_model, tokenizer=asked.tokenizer))
    contestants: dict[str, Callable[[str], tuple[float, float, int]]] = {
        "httpx, plain": lambda question: plain_request(served, question, asked.tokens),
        "adacd, default": lambda question: decoded(served, "default", question, asked.tokens),
        "adacd, adacd": lambda question: decoded(served, "adacd", question, asked.tokens),
    }
    if asked.local:
        local = load(Settings(model=asked.local, threads=asked.threads))
        contestants["torch, default"] = lambda question: decoded(local, "default", question, asked.tokens)
        contestants["torch, adacd"] = lambda question: decoded(local, "adacd", question, asked.tokens)

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    names = list(contestants)
    number = 100
    for trial in range(-1, asked.trials):  # the first one warms up
        for name in names[trial % len(names) :] + names[: trial % len(names)]:
            number += 1
            whole, first, tokens = contestants[name](QUESTION.format(number))
            if tokens != asked.tokens:
                print(f"{name}: {tokens} tokens instead of {asked.tokens}, left out")
            elif trial >= 0:
                times[name].append((whole, first))

    base = {name: statistics.median(whole for whole, _ in each) for name, each in times.items() if each}
    print(
        f"{served.server.probe.dialect.name}, {asked.tokens} tokens, median of {asked.trials} (least to most)"
    )
    for name, median in base.items():
        wholes = [whole for whole, _ in times[name]]
        first = statistics.median(first for _, first in times[name])
        ratios = "  ".join(f"÷ {other} {median / base[other]:.2f}" for other in base if other != name)
        if name == "adacd, adacd":
            least = {other: min(whole for whole, _ in times[other]) for other in base}
            ratios += f"  (of the least times: ÷ default {least[name] / least['adacd, default']:.2f})"
        print(
            f"{name:15} {median:6.2f} s ({min(wholes):.2f} to {max(wholes):.2f}), first token {first:.2f} s"
            f"  {ratios}"
        )


def decoded(model: LanguageModel, method: str, question: str, tokens: int) -> tuple[float, float, int]:
    """Seconds of an answer, seconds to its first token, and how many tokens it has."""
    settings = Settings(method=method, max_new_tokens=tokens)
    request = Request(prompts_for(model.tokenizer, Conversation.ask(question, None), settings), settings)
    begin, first, count = time.perf_counter(), 0.0, 0
    for event in decode(model, [request]):
        if isinstance(event, TokenStep):
            first = first or time.perf_counter() - begin
        elif isinstance(event, Finished):
            count = event.tokens
    return time.perf_counter() - begin, first, count


def plain_request(model: LanguageModel, question: str, tokens: int) -> tuple[float, float, int]:
    """The same of one streamed request that asks for text alone, as any client would."""
    pair = prompts_for(model.tokenizer, Conversation.ask(question, None), Settings(method="default"))
    body = {"prompt": list(pair.base.ids), "temperature": 0, "stream": True, "max_tokens": tokens}
    body["model"] = model.server.probe.model
    begin, first, count = time.perf_counter(), 0.0, 0
    url = f"{model.server.address}/completions"
    with httpx.stream("POST", url, json=body, timeout=300) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            first = first or time.perf_counter() - begin
            usage = json.loads(line[6:]).get("usage") or {}
            count = max(count + 1, usage.get("completion_tokens", 0))
    return time.perf_counter() - begin, first, min(count, tokens)


if __name__ == "__main__":
    main()
