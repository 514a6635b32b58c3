"""adacd on llama.cpp beside llama.cpp's own plain decoding and adacd on torch; every ratio from one run.

    python benchmarks/llamacpp.py MODEL.gguf [--large] [--tokens N] [--trials N] [--threads N]

Contestants take turns, so that whatever slows the machine slows them alike; times are medians of the process's CPU
seconds, which on a machine that others use too vary less than those of a clock (with one thread they are the same).
Besides the ratios it prints the peak memory of a process of its own that answers once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from adacd_cli import load
from adacd_cli.answers import decode
from adacd_cli.backends.llamacpp.model import decode_greedily
from adacd_cli.bench.measure import time_decode
from adacd_cli.bench.subject import TextPrompts
from adacd_cli.config import Settings
from adacd_cli.engine import LanguageModel, Request
from adacd_cli.events import TokenStep

_PEAK = """
import resource, sys
from adacd_cli import generate, load
from adacd_cli.backends.llamacpp import backend
backend._FIRST_CELLS = 4096
model = load(sys.argv[1], threads=1, context=4096)
generate(model, "Why is the sky blue?", max_new_tokens=8, method=sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def turns(trials: int, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median CPU seconds of each, after one run that is not timed."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for trial in range(trials + 1):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            if trial:
                found[name].append(time.process_time() - begin)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def small_rows(model: LanguageModel, tokens: int, trials: int) -> dict[str, float]:
    """What only a small model decodes often enough in a few minutes."""
    settings = {
        "default": Settings(method="default", max_new_tokens=tokens),
        "adacd": Settings(max_new_tokens=tokens, contrast_placement="user-end"),
        "adacd, system": Settings(max_new_tokens=tokens),
    }
    prompts = TextPrompts(model, 100)
    made = {name: prompts.make(own, 8) for name, own in settings.items()}
    base = made["default"][0].base.ids

    runs: dict[str, Callable[[], object]] = {
        name: (lambda n=name: time_decode(model, made[n][:1], settings[n])) for name in settings
    }
    runs["llama.cpp"] = lambda: decode_greedily(model.model, base, tokens)
    figures = turns(trials, runs)
    report = {
        "default ÷ llama.cpp": figures["default"] / figures["llama.cpp"],
        "adacd (user-end) ÷ default": figures["adacd"] / figures["default"],
        "adacd (system) ÷ default": figures["adacd, system"] / figures["default"],
    }

    long = TextPrompts(model, 2000 if (model.context_length or 0) > 2100 else 400)
    first = {name: long.make(settings[name], 1) for name in ("default", "adacd")}
    one = {name: settings[name].model_copy(update={"max_new_tokens": 1}) for name in first}
    figures = turns(2, {name: (lambda n=name: time_decode(model, first[n], one[n])) for name in first})
    report["first token after a long prompt, adacd (user-end) ÷ default"] = (
        figures["adacd"] / figures["default"]
    )

    def answers(at_once: int) -> None:
        requests = [Request(each, settings["default"]) for each in made["default"]]
        count = sum(isinstance(event, TokenStep) for event in decode(model, requests, batch_size=at_once))
        assert count == 8 * tokens

    figures = turns(2, {"one": lambda: answers(1), "eight": lambda: answers(8)})
    report["8 requests at once ÷ one by one, answers a second"] = figures["one"] / figures["eight"]

    return report


def large_rows(model: LanguageModel, name: str, threads: int) -> dict[str, float]:
    """Peak memory, and the time of a token on torch, which unpacks the weights."""
    report: dict[str, float] = {}
    for method in ("default", "adacd"):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, name, method], capture_output=True, text=True, check=True
        )
        report[f"peak memory of the process, {method}, GB"] = float(done.stdout)

    unpacked = replace(load(name, threads=threads, engine="torch"), eos_ids=frozenset())
    both: dict[str, Callable[[], object]] = {}
    for engine, each in (("llamacpp", model), ("torch", unpacked)):
        for tokens in (2, 18):
            few = Settings(max_new_tokens=tokens, contrast_steps=0)
            prompt = TextPrompts(each, 64).make(few, 1)
            both[f"{engine} {tokens}"] = lambda m=each, p=prompt, own=few: time_decode(m, p, own)
    figures = turns(2, both)
    spent = [figures[f"{each} 18"] - figures[f"{each} 2"] for each in ("llamacpp", "torch")]
    report["adacd on llama.cpp ÷ on torch, time a token"] = spent[0] / spent[1]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--large", action="store_true", help="only memory, and a token beside torch")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    model = replace(load(asked.model, threads=asked.threads, engine="llamacpp"), eos_ids=frozenset())
    report = {} if asked.large else small_rows(model, asked.tokens, asked.trials)
    report |= large_rows(model, asked.model, asked.threads)
    print(json.dumps({name: round(value, 3) for name, value in report.items()}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
