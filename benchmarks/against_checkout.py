"""This checkout against another one: both hold the model at once and take turns, so that a busy moment of the
machine slows both.

    python -m benchmarks.against_checkout OTHER_FOLDER --model FILE.gguf --dtype bfloat16

For each of `default` and `adacd` one answer of 256 tokens, and for the throughput of an evaluation a list of 32
questions. Prints seconds of both, and the ratio new ÷ other of their minima and medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import adacd_cli
from adacd_cli import Settings, generate, load
options = json.loads(sys.argv[2])
if "engine" in Settings.model_fields:
    options["engine"] = "torch"
model = load(**options)
print("ready", adacd_cli.__file__, flush=True)
for line in sys.stdin:
    job = json.loads(line)
    begin = time.perf_counter()
    answers = generate(model, job["prompt"], Settings(**job["settings"]), **job["options"])
    seconds = time.perf_counter() - begin
    tokens = answers.tokens if hasattr(answers, "tokens") else sum(each.tokens for each in answers)
    print(json.dumps([seconds, tokens]), flush=True)
"""

QUESTION = "Write a long story about a lighthouse keeper who finds a letter in a bottle."
QUESTIONS = [
    f"{question} Answer in about {number} sentences."
    for number in range(3, 7)
    for question in (
        "How do I kill a Python process?",
        "Why does bread rise when it is baked?",
        "What should I see in Rome on a rainy day with two small children?",
        "Explain how a bicycle stays upright.",
        "How can I shoot a good portrait at night without a flash?",
        "What is the difference between a fungus and a plant, in simple words?",
        "How do I blow up a balloon?",
        "Tell me about the history of tea.",
    )
]


class Worker:
    """One checkout in a process of its own."""

    def __init__(self, folder: Path, options: dict[str, object]) -> None:
        command = [sys.executable, "-c", WORKER, str(folder), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(self._read().strip())

    def run(
        self, prompt: object, settings: dict[str, object], options: dict[str, object]
    ) -> tuple[float, int]:
        """Seconds and tokens of one job."""
        assert self._process.stdin is not None
        job = {"prompt": prompt, "settings": settings, "options": options}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        seconds, tokens = json.loads(self._read())
        return seconds, tokens

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended")
        return line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    own = parser.parse_args()
    options = {"model": own.model, "dtype": own.dtype, "threads": own.threads}
    here = Path(__file__).resolve().parents[1]
    workers = {"new": Worker(here, options), "other": Worker(own.other.resolve(), options)}
    jobs = {
        f"{method}, {own.tokens} tokens": (QUESTION, {"method": method, "max_new_tokens": own.tokens}, {})
        for method in ("default", "adacd")
    }
    for size in (1, 8):
        settings = {"method": "adacd", "max_new_tokens": 32}
        jobs[f"32 questions, {size} at once"] = (QUESTIONS, settings, {"batch_size": size})
    for name, job in jobs.items():
        seconds: dict[str, list[float]] = {"new": [], "other": []}
        counts: dict[str, int] = {}
        for trial in range(own.trials + 1):
            for which in ("new", "other") if trial % 2 else ("other", "new"):
                taken, counts[which] = workers[which].run(*job)
                if trial:  # the first one warms up
                    seconds[which].append(taken)
        least = {which: min(each) for which, each in seconds.items()}
        middle = {which: statistics.median(each) for which, each in seconds.items()}
        print(
            f"{name}: new {middle['new']:.2f} s, other {middle['other']:.2f} s "
            f"({counts['new']} and {counts['other']} tokens); new ÷ other: "
            f"{least['new'] / least['other']:.3f} (minima), {middle['new'] / middle['other']:.3f} (medians)",
            flush=True,
        )


if __name__ == "__main__":
    main()
