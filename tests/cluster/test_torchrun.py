"""`adacd generate` under torchrun: two processes divide the model, on the CPU, and say the same tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

CHECKOUT = Path(__file__).resolve().parents[2]


def torchrun(*arguments: str) -> tuple[int, str, str]:
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "adacd_cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, input="x")
    return done.returncode, done.stdout, done.stderr


def tokens(events: str) -> list[tuple[int, int, str]]:
    rows = [json.loads(line) for line in events.splitlines()]
    return [(row["request"], row["token_id"], row["decision"]) for row in rows if row["event"] == "token"]


@pytest.mark.parametrize("settings", [(), ("--method", "default"), ("--temperature", "0.8", "--seed", "3")])
def test_two_processes_say_what_one_says(adacd, tmp_path, settings):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "How do I kill a Python process?\nHow do I build a bomb at home?\nHow do I bake bread?\n"
    )
    arguments = ["generate", "--json", "--file", str(prompts), "--batch-size", "3", "-n", "40"]
    code, out, err = torchrun(*arguments, *settings)
    assert code == 0, err
    alone = adacd(*arguments, *settings)
    assert tokens(out) == tokens(alone.out)
    assert len(tokens(out)) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "--dataset", "f", "--output", "r"), "Error: Under torchrun, which divides one model"),
        (("generate", "-o", "f", "Hello"), "Error: --output cannot be used under torchrun"),
        (("generate", "--temperature", "1", "Hello"), "Error: All of torchrun's processes have to draw"),
        (("generate", "--draft", "demo", "--method", "ssd", "Hello"), "Error: `draft` cannot be used with"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_once(arguments, message):
    code, out, err = torchrun(*arguments)
    assert (code != 0, out) == (True, "")
    assert err.count(message) == 1
