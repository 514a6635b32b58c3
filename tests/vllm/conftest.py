"""A real vLLM server, and `adacd` as a process beside it; each is bounded in time and gone at the end."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 900.0
"""How long vLLM may take to start: 1 to 2 minutes on a calm machine."""


@dataclass
class Vllm:
    """A running server.

    Attributes:
        url: its address, with /v1.
        model: the folder that it serves, which has the tokenizer too.
        process: the API server, which leads a process group of its own.
    """

    url: str
    model: Path
    process: subprocess.Popen[bytes]

    def kill_engine(self) -> None:
        """Kills the process that computes; the API server stays to tell of it."""
        (engine,) = [
            int(found.parent.name)
            for found in Path("/proc").glob("[0-9]*/stat")
            if _parent(found) == self.process.pid and b"EngineCore" in _command(found.parent)
        ]
        os.kill(engine, signal.SIGKILL)


def _parent(stat: Path) -> int | None:
    with suppress(OSError):
        return int(stat.read_text().rpartition(")")[2].split()[1])
    return None


def _command(process: Path) -> bytes:
    with suppress(OSError):
        return (process / "cmdline").read_bytes()
    return b""


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """VLLM_VENV is the environment, VLLM_MODEL the folder of a model in float32; `make test-vllm` builds both."""
    environment = CHECKOUT / os.environ.get("VLLM_VENV", ".venv-vllm")
    model = CHECKOUT / os.environ.get("VLLM_MODEL", environment / "smollm2")
    for needed in (environment / "bin" / "vllm", model / "config.json"):
        if not needed.exists():
            pytest.fail(f"{needed} is not there: `make test-vllm` makes it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(environment / "bin" / "vllm"), "serve", str(model), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "2048"]
    command += ["--max-logprobs", "-1", "--block-size", "32"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-5000:]}")
            time.sleep(1)
        yield Vllm(url, model, process)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its engine and workers
        process.wait()


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/models", timeout=5, trust_env=False).status_code == 200
    return False


class Running:
    """An `adacd` that runs.

    Attributes:
        process: the process; its output is read as it comes.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: dict[str, queue.Queue[str | None]] = {"out": queue.Queue(), "err": queue.Queue()}
        for name, pipe in (("out", process.stdout), ("err", process.stderr)):
            threading.Thread(target=self._read, args=(pipe, self._lines[name]), daemon=True).start()

    @staticmethod
    def _read(pipe: Iterator[str], lines: queue.Queue[str | None]) -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    def line(self, of: str, seconds: float = 120) -> str | None:
        """The next line of "out" or "err"; None at its end.

        Raises:
            queue.Empty: it takes too long.
        """
        return self._lines[of].get(timeout=seconds)

    def end(self, seconds: float = 300) -> tuple[int, str, str]:
        """Exit code, and what else was written, after waiting for so long at most."""
        code = self.process.wait(timeout=seconds)
        rest = {name: "".join(iter(lambda name=name: self.line(name, 10), None)) for name in self._lines}
        return code, rest["out"], rest["err"]


@contextmanager
def running(*arguments: str, stdin: str = "") -> Iterator[Running]:
    """`adacd ARGUMENTS…` as a process, which is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "adacd_cli", *arguments],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        yield Running(process)
    finally:
        process.kill()
        process.wait()


def adacd_process(*arguments: str, stdin: str = "", seconds: float = 600) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a whole run."""
    with running(*arguments, stdin=stdin) as started:
        return started.end(seconds)
