"""A real llama.cpp server over loopback (PyPI's xllamacpp) in its own process, and the demo as a GGUF file.

    python -m tests.llama_server FILE.gguf [SLOTS [CONTEXT]]

prints its address and serves until it is ended.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class LlamaServer:
    """A running server.

    Attributes:
        url: its address, with /v1.
        process: what to end it by.
    """

    url: str
    process: subprocess.Popen[str]


@contextmanager
def llama_server(gguf: Path, *, slots: int = 4, context: int = 512) -> Iterator[LlamaServer]:
    """A server of one model; skips the test where xllamacpp is not installed.

    Args:
        gguf: the model's file.
        slots: how many requests it runs at once.
        context: tokens that each may have.
    """
    pytest.importorskip("xllamacpp", reason="a real llama.cpp server comes with xllamacpp")
    command = [sys.executable, "-m", "tests.llama_server", str(gguf), str(slots), str(context)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[1]
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), "the server did not start"
        yield LlamaServer(f"{address}/v1", process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def write_demo_gguf(path: Path) -> Path:
    """The bundled model with float32 weights, as llama.cpp reads it."""
    from adacd_cli.loading import load
    from tests.gguf_files import write_gguf

    demo = load("demo", dtype="float32", device="cpu")
    return write_gguf(path, demo.model, demo.tokenizer)


def _serve(gguf: str, slots: int, context: int) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel, parameters.n_ctx = slots, slots * context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    arguments = [int(text) for text in sys.argv[2:]]
    _serve(sys.argv[1], *(arguments + [4, 512][len(arguments) :]))
