"""Would drafting the contrast window pay? On real text, from the tokens AdaCD takes and the time of forwards.

    python benchmarks/window_draft.py --model FOLDER_OR_GGUF --prompts FILE.jsonl --limit 40 --threads 1

The window could be drafted by the unprompted stream alone and verified for the prompted one in a single
forward of several tokens, keeping the steps at which AdaCD's token is the plain one and rolling back at the
first that differs: the same tokens, with fewer prompted forwards. What decides is how many plain tokens in a
row AdaCD takes (seen in its own events), and what a forward of two rows and of several tokens costs (measured
here). The loop as it is feeds both streams in one forward of two rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from adacd_cli.engine.stream import Stream

from adacd_cli import Conversation, Request, Settings, decode, load, prompts_for
from adacd_cli.events import TokenStep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--prompts", required=True, help="JSON Lines with a field `prompt` or `goal`")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="auto")
    asked = parser.parse_args()

    settings = Settings(
        model=asked.model, threads=asked.threads, dtype=asked.dtype, max_new_tokens=10, device="cpu"
    )
    model = load(settings)
    lines = Path(asked.prompts).read_text(encoding="utf-8").splitlines()[: asked.limit]
    prompts = [prompts_for(model.tokenizer, Conversation.ask(text(line)), settings) for line in lines]
    windows = []
    for each in prompts:
        steps = [event for event in decode(model, [Request(each, settings)]) if isinstance(event, TokenStep)]
        windows.append([step.token_id == step.plain_token_id for step in steps])
    kept = [same for window in windows for same in window]
    first = statistics.fmean(window.index(False) if False in window else len(window) for window in windows)
    print(f"{asked.model}, {len(prompts)} prompts of {Path(asked.prompts).name}, {model.model.dtype}")
    print(f"AdaCD takes the plain token at {sum(kept) / len(kept):.1%} of the window's steps;")
    print(f"{first:.1f} plain tokens on average before the first that differs")

    prompt = prompts[0].base.ids
    one, two, chunks = forwards(model.model, prompt)
    print(f"a forward of one row {one:.1f} ms, of two rows {two:.1f} ms")
    now = sum((len(window) - 1) * two for window in windows)
    for length, chunk in chunks.items():
        drafted = sum(window_time(window, length, one, chunk) for window in windows)
        print(f"drafts of {length:2}: verified in {chunk:5.1f} ms; window {drafted / now:.2f} times as long")


def text(line: str) -> str:
    values = json.loads(line)
    return str(values.get("prompt") or values.get("goal") or values.get("instruction"))


def window_time(same: list[bool], length: int, one: float, chunk: float) -> float:
    """Milliseconds of a window by drafting: `same` tells where AdaCD's token is the plain one."""
    place, total = 0, 0.0
    while place < len(same):
        drafted = min(length, len(same) - place)
        total += drafted * one + chunk
        run = next((n for n in range(drafted) if not same[place + n]), drafted)
        place += min(run + 1, drafted)
    return total - one - chunk / length  # the first token's logits come with the prefill, here as there


def forwards(model: object, prompt: tuple[int, ...]) -> tuple[float, float, dict[int, float]]:
    """Milliseconds of a forward of one row, of two rows, and of several tokens of one row."""
    single, double, several = Stream(model), Stream(model), Stream(model)
    single.prefill([prompt])
    double.prefill([prompt, prompt])
    several.prefill([prompt])

    def chunk(length: int) -> None:
        several.feed(prompt[:length], length)
        several.take_back(length)

    one = median(lambda: single.advance([prompt[0]]))
    two = median(lambda: double.advance([prompt[0]] * 2))
    return one, two, {n: median(lambda n=n: chunk(n)) for n in (2, 3, 4, 5, 8, 10)}


def median(run: Callable[[], object]) -> float:
    times = []
    for _ in range(25):
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[5:])


if __name__ == "__main__":
    main()
