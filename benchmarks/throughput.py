"""Answers a second of `adacd eval`'s runner: one by one, and many at once; in one process, in turn.

python benchmarks/throughput.py --model FOLDER_OR_GGUF --prompts FILE.jsonl --limit 32 --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from adacd_cli import Settings, load
from adacd_cli.evaluation.datasets.load import load_samples
from adacd_cli.evaluation.runner import Runner, answer_all
from adacd_cli.evaluation.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--method", default="adacd")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", default="auto")
    parser.add_argument("--trials", type=int, default=1)
    asked = parser.parse_args()

    settings = Settings(
        model=asked.model,
        dtype=asked.dtype,
        threads=asked.threads,
        method=asked.method,
        max_new_tokens=asked.max_new_tokens,
    )
    model = load(settings)
    loaded = load_samples([asked.prompts], data=None, label=None, limit=asked.limit, seed=0, offline=True)[0]
    samples = loaded.samples
    many = asked.batch_size if asked.batch_size == "auto" else int(asked.batch_size)
    found = Runner(model).limit(samples, [settings], many)
    print(
        f"{asked.model}, {model.model.dtype}, {len(samples)} prompts of {Path(asked.prompts).name}, ", end=""
    )
    print(f"{asked.method}, up to {asked.max_new_tokens} tokens, {asked.threads} threads; at once: {found}")
    rates: dict[str, list[float]] = {"one by one": [], "many at once": []}
    for _ in range(asked.trials):
        for name, size in (("one by one", 1), ("many at once", many)):
            with tempfile.TemporaryDirectory() as folder, Store(Path(folder), {}) as store:
                begin = time.perf_counter()
                answer_all(model, samples, [settings], store, batch_size=size)
                seconds = time.perf_counter() - begin
                tokens = sum(record.tokens for record in store.answers.values())
            rates[name].append(len(samples) / seconds)
            print(f"{name:13} {len(samples) / seconds:6.2f} answers/s  {tokens / seconds:7.1f} tokens/s")
    one, together = (statistics.median(own) for own in rates.values())
    print(f"many at once ÷ one by one  {together / one:.2f}")


if __name__ == "__main__":
    main()
