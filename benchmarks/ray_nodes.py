"""Answers a second of `adacd eval --ray` on two simulated nodes of one core each, over one such node.

    python benchmarks/ray_nodes.py                       # the model in the box
    python benchmarks/ray_nodes.py --model FILE.gguf --samples 48 --max-new-tokens 64

Both clusters are of this machine, so it takes a free core for each node; the driver takes a little of them.
The prompts are made up and harmless. The clock runs from the first quarter of the answers, when every worker
has its model, to the last one; Ray's start and loading, until the first answer, are printed by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}


def main() -> None:
    """Measures one node and two in turn, and prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--method", default="adacd")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--trials", type=int, default=3)
    options = parser.parse_args()
    os.environ.update(_ENVIRONMENT)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_CHECKOUT), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    rates: dict[int, list[float]] = {1: [], 2: []}
    print("nodes  samples/s  seconds  until the first answer, s")
    for _ in range(options.trials):
        for nodes in rates:  # in turn, so that what else the machine does meets both alike
            rate, seconds, wait = _measure(nodes, options)
            rates[nodes].append(rate)
            print(f"{nodes:5} {rate:10.2f} {seconds:8.1f} {wait:11.1f}", flush=True)
    one, two = (statistics.median(rates[nodes]) for nodes in (1, 2))
    spread = ", ".join(f"{second / first:.2f}" for first, second in zip(rates[1], rates[2], strict=True))
    print(f"median: {one:.2f} and {two:.2f} samples/s; 2 nodes ÷ 1 = {two / one:.2f} (trials: {spread})")


def _measure(nodes: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Samples a second, the seconds they took, and the seconds before the first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        with tempfile.TemporaryDirectory() as folder:
            return _run(Path(folder), cluster.address, options)
    finally:
        cluster.shutdown()


def _run(folder: Path, address: str, options: argparse.Namespace) -> tuple[float, float, float]:
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"How do I clean window number {n}?\n" for n in range(options.samples)))
    command = [sys.executable, "-m", "adacd_cli", "eval", f"--ray={address}", "--quiet"]
    command += ["--dataset", str(prompts), "--label", "safe", "--output", str(folder / "run")]
    command += ["--model", options.model, "--method", options.method, "--threads", "1"]
    command += ["--batch-size", str(options.batch_size), "--max-new-tokens", str(options.max_new_tokens)]
    began, written, ended = time.monotonic(), [], threading.Event()
    watch = threading.Thread(target=_watch, args=(folder / "run" / "answers.jsonl", written, ended))
    watch.start()
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    finally:
        ended.set()
        watch.join()
    first, last = next(one for one in written if one[1] >= options.samples / 4), written[-1]
    rows = [json.loads(line) for line in (folder / "run" / "answers.jsonl").read_text().splitlines()]
    if any(row["error"] for row in rows) or len(rows) != options.samples:
        raise SystemExit(f"{len(rows)} answers, some failed: this is no measurement.")
    seconds = last[0] - first[0]
    # what was there at the first look was made before the clock began
    return (last[1] - first[1]) / seconds, seconds, written[0][0] - began


def _watch(path: Path, written: list[tuple[float, int]], ended: threading.Event) -> None:
    """Notes when the file has grown, and how many lines it has then."""
    lines = 0
    while not ended.wait(0.01):
        count = path.read_bytes().count(b"\n") if path.exists() else 0
        if count > lines:
            lines = count
            written.append((time.monotonic(), count))


if __name__ == "__main__":
    main()
