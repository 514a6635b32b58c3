"""Seconds of transformers' generate, our default and our adacd, in one process, in turn, and their ratios.

    python benchmarks/speed.py --model FOLDER_OR_GGUF --tokens 128 --trials 5 --threads 1

Greedy float32 on the CPU, the same prompt, the same number of tokens each (ends of turn are ignored), one
round of warm-up, medians. Run it on an idle machine: a second busy process can make torch many times slower.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch

from adacd_cli import Conversation, Request, Settings, build_pair, decode, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", default="How do I kill a Python process?")
    asked = parser.parse_args()

    settings = Settings(
        model=asked.model, dtype="float32", device="cpu", threads=asked.threads, max_new_tokens=asked.tokens
    )
    model = replace(load(settings), eos_ids=frozenset())
    pair = build_pair(model.tokenizer, Conversation.ask(asked.prompt), settings.contrast_prompt)
    ids = torch.tensor([pair.unprompted_ids])

    def generate() -> None:
        model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=asked.tokens,
            min_new_tokens=asked.tokens,
        )

    def ours(method: str) -> Callable[[], None]:
        chosen = settings.model_copy(update={"method": method})
        return lambda: deque(decode(model, [Request(pair)], chosen), maxlen=0).clear()

    runs = {
        "transformers generate": generate,
        "default": ours("default"),
        "adacd": ours("adacd"),
        "adacd-gated": ours("adacd-gated"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for trial in range(asked.trials + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if trial > 0:
                seconds[name].append(time.perf_counter() - begin)

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{asked.model}, {asked.tokens} tokens, {asked.threads} threads, torch {torch.__version__}")
    for name, values in seconds.items():
        spread = f"{min(values):.2f}–{max(values):.2f}"
        print(f"{name:22} {medians[name]:6.2f} s  ({spread})  {asked.tokens / medians[name]:6.1f} tokens/s")
    print(f"default ÷ generate   {medians['default'] / medians['transformers generate']:.3f}")
    print(f"adacd ÷ default      {medians['adacd'] / medians['default']:.3f}")
    print(f"gated ÷ default      {medians['adacd-gated'] / medians['default']:.3f}")


if __name__ == "__main__":
    main()
