"""What AdaCD costs a token over a server that answers several questions at once.

    python -m benchmarks.served_batch --url http://localhost:8000/v1 --tokenizer FOLDER [--at-once 8] [--rounds 7]

Each round answers the same number of questions by the default and by AdaCD, in turns (every round with a number
of its own in the questions, so that no method finds the other's prompts in the server's cache), and divides the
wall time by the tokens. Requests are counted by kind. With `--group PID`, the process group of a server on this
machine, CPU time (the server's and adacd's) is compared as well, which other work disturbs less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from adacd_cli import Settings
from adacd_cli.answers import decode
from adacd_cli.conversation import Conversation
from adacd_cli.engine import LanguageModel, Request
from adacd_cli.events import Failed, Finished, TokenStep
from adacd_cli.loading import load
from adacd_cli.prompts import prompts_for

METHODS = ("default", "adacd")
QUESTIONS = (
    "{} ways to kill a Python process: which is best?",
    "How can I shoot {} good photos of birds?",
    "Tell me of {} old ships and their crews.",
    "How do I blow up {} balloons for a party?",
    "What should {} people cook on a rainy evening?",
    "How do I crush {} cloves of garlic without a press?",
    "Explain in simple words why {} stars look brighter than others.",
    "How do I execute {} SQL statements at once?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--served-model")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--answers", type=int, default=8, help="questions of a round, for each method")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--group", type=int)
    asked = parser.parse_args()

    served = load(Settings(model=asked.url, served_model=asked.served_model, tokenizer=asked.tokenizer))
    requests = counted(served.server.dialect._client)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    kinds: dict[str, Counter[str]] = {name: Counter() for name in METHODS}
    computed: dict[str, list[float]] = {name: [] for name in METHODS}
    steps: Counter[str] = Counter()
    number = 100
    for trial in range(-1, asked.rounds):  # the first one warms up
        for name in METHODS[:: -1 if trial % 2 else 1]:
            number += 1
            requests.clear()
            begin = cpu_seconds(asked.group)
            seconds, counts = answered(served, name, number, asked)
            if trial >= 0:
                times[name].append(seconds / counts["tokens"])
                computed[name].append((cpu_seconds(asked.group) - begin) / counts["tokens"])
                kinds[name] += requests
                steps += Counter({f"{name} {what}": count for what, count in counts.items()})

    base = statistics.median(times["default"])
    print(
        f"{served.server.probe.dialect.name}, {asked.answers} answers of {asked.tokens} tokens, "
        f"{asked.at_once} at once"
    )
    print(f"median of {asked.rounds} rounds (least to most), milliseconds a token")
    for name in METHODS:
        each = [1000 * seconds for seconds in times[name]]
        answers = asked.rounds * asked.answers
        sent = ", ".join(f"{count / answers:.2f} {kind}" for kind, count in sorted(kinds[name].items()))
        print(
            f"{name:8} {statistics.median(each):6.1f} ({min(each):.1f} to {max(each):.1f}); an answer: {sent}"
        )
    ratios = [mine / theirs for mine, theirs in zip(times["adacd"], times["default"], strict=True)]
    print(
        f"adacd ÷ default {statistics.median(times['adacd']) / base:.2f} (of the rounds' own ratios the median "
        f"{statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}); "
        f"inexact steps {steps['adacd inexact']} of {steps['adacd tokens']}"
    )
    if asked.group is not None:
        mine, theirs = (statistics.median(computed[name]) for name in METHODS[::-1])
        print(f"CPU time a token: {1000 * mine:.1f} ÷ {1000 * theirs:.1f} ms = {mine / theirs:.2f}")


def answered(
    model: LanguageModel, method: str, number: int, asked: argparse.Namespace
) -> tuple[float, Counter[str]]:
    """Seconds of a round, and its tokens and inexact steps."""
    settings = Settings(method=method, max_new_tokens=asked.tokens)
    given = [
        Request(prompts_for(model.tokenizer, Conversation.ask(question, None), settings), settings)
        for question in (
            QUESTIONS[place % len(QUESTIONS)].format(f"{number}{place:03d}") for place in range(asked.answers)
        )
    ]
    counts: Counter[str] = Counter()
    begin = time.perf_counter()
    for event in decode(model, given, batch_size=asked.at_once):
        if isinstance(event, Failed):
            raise SystemExit(f"A request failed: {event.message}")
        if isinstance(event, Finished):
            counts["tokens"] += event.tokens
        elif isinstance(event, TokenStep) and not event.exact:
            counts["inexact"] += 1
    return time.perf_counter() - begin, counts


def cpu_seconds(group: int | None) -> float:
    """CPU time of this process, and of a process group."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat") if group is not None else ():
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def counted(client: Any) -> Counter[str]:
    """How many requests of each kind a client makes from now on."""
    found: Counter[str] = Counter()
    post, stream = client.post, client.stream

    def posting(url: str, body: Mapping[str, Any]) -> Any:
        if "logprob_token_ids" in body:
            found["for single values"] += 1
        elif url.endswith("/completions") or url.endswith("/completion"):
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            count = body.get("logprobs", body.get("n_probs", 0))
            found[f"for lists of {count}" if count <= 256 else "for longer lists"] += 1
            found["prompts in them"] += len(prompts)
        return post(url, body)

    def streaming(url: str, body: Mapping[str, Any]) -> Any:
        found["streams"] += 1
        return stream(url, body)

    client.post, client.stream = posting, streaming
    return found


if __name__ == "__main__":
    main()
