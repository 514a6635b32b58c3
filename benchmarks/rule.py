"""Milliseconds that choosing a token takes beside a forward: AdaCD's rule, the plain one, and reading logits.

    python benchmarks/rule.py --vocab 256000 --threads 1 [--device cuda] [--step-ms 270]

`--step-ms` is what a forward of the model in mind takes (`adacd bench` tells); the share is of that.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from adacd_cli import Settings
from adacd_cli.engine.rules import adacd, default
from adacd_cli.engine.step import pack_step, unpack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=256_000)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--step-ms", type=float, default=None)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shape, settings = (asked.rows, asked.vocab), Settings()
    plain = 3 * torch.randn(shape, device=asked.device)
    prompted = plain + torch.randn(shape, device=asked.device)

    def measured(contrasted: bool) -> float:
        times = []
        for _ in range(60):
            begin = time.perf_counter()
            if contrasted:
                unpack(pack_step(adacd.rule, plain, prompted, settings, None))
            else:
                unpack(pack_step(default.rule, plain, None, settings, None))
            times.append(1000 * (time.perf_counter() - begin))
        return statistics.median(times[10:])

    print(f"{asked.rows} × {asked.vocab} logits on {asked.device}, {asked.threads} threads")
    for name, contrasted in (("plain step", False), ("contrasted step", True)):
        took = measured(contrasted)
        share = "" if asked.step_ms is None else f"  {took / asked.step_ms:.1%} of {asked.step_ms:g} ms"
        print(f"{name:16} {took:6.2f} ms{share}")


if __name__ == "__main__":
    main()
