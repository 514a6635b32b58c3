"""A load test of `adacd serve`: many clients, mixed lengths, streaming and not, a part of them leaving early.

    python -m benchmarks.serve_load --clients 64 --minutes 5 --leave 0.33
    python -m benchmarks.serve_load --sweep 1,4,16,64 --seconds 30

It starts a server of its own unless `--url` names one; arguments after `--` go to that server. At the end no
request is lost, and the server's metrics show no row and no queue. Exit code 1 where that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx

QUESTIONS = (
    "How do I kill a Python process?",
    "Tell me a joke",
    "How do I crack an egg?",
    "How do I blow up a balloon?",
    "How do I build a bomb at home?",
)
FILLING = "It is a quiet day and the kettle is on. "


@dataclass
class Tally:
    """What a load came to."""

    outcomes: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """Requests that were neither answered, refused nor left by the client."""
        return self.outcomes["lost"]


class Left(Exception):
    """The client goes."""


async def ask(
    client: httpx.AsyncClient, model: str, chance: random.Random, leave: float, tally: Tally
) -> None:
    """One request of a random kind."""
    question = FILLING * chance.choice((0, 0, 1, 4, 16)) + chance.choice(QUESTIONS)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": chance.choice((4, 16, 64, 128)),
        "temperature": chance.choice((0, 0, 0.8)),
        "stream": chance.random() < 0.6,
        "adacd": {"method": chance.choice(("adacd", "adacd", "adacd-gated", "default"))},
    }
    leaves = chance.random() < leave
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
        await _stream(client, body, chance.randint(0, 20) if leaves else None, tally)
    elif leaves:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_plain(client, body, tally), chance.uniform(0.01, 1.0))
            return
        raise Left
    else:
        await _plain(client, body, tally)


async def _plain(client: httpx.AsyncClient, body: dict[str, object], tally: Tally) -> None:
    response = await client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    answer = response.json()
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    tally.tokens += answer["usage"]["completion_tokens"]


async def _stream(
    client: httpx.AsyncClient, body: dict[str, object], leaves_after: int | None, tally: Tally
) -> None:
    begin, chunks, usage, last = time.perf_counter(), 0, 0, ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line:
                continue
            last = line
            if line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            assert "error" not in chunk, chunk
            if chunk.get("usage"):
                usage = chunk["usage"]["completion_tokens"]
            chunks += 1
            if chunks == 2:
                tally.first.append(time.perf_counter() - begin)
            if leaves_after is not None and chunks > leaves_after:
                raise Left
    assert last == "data: [DONE]", f"the stream ended in {last[:80]!r}"
    tally.tokens += usage


async def client_loop(
    url: str, key: str | None, model: str, number: int, until: float, leave: float, tally: Tally
) -> None:
    """One client: a request after the other until the time is over."""
    chance = random.Random(number)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
        while time.monotonic() < until:
            try:
                await ask(client, model, chance, leave, tally)
                tally.outcomes["ok"] += 1
            except Left:
                tally.outcomes["left"] += 1
            except httpx.HTTPStatusError as error:
                tally.outcomes["refused" if error.response.status_code == 429 else "failed"] += 1
                if error.response.status_code != 429:
                    tally.problems[f"{error.response.status_code} {error.response.text[:120]}"] += 1
                await asyncio.sleep(float(error.response.headers.get("retry-after", 0)))
            except Exception as error:
                tally.outcomes["lost"] += 1
                tally.problems[f"{type(error).__name__}: {error}"[:200]] += 1


async def metric(client: httpx.AsyncClient) -> dict[str, float]:
    """The server's counters that have no labels."""
    text = (await client.get("/metrics")).text
    pairs = (line.split(" ") for line in text.splitlines() if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


async def load(url: str, key: str | None, clients: int, seconds: float, leave: float, every: float) -> Tally:
    """Runs the clients and prints the server's memory as it goes."""
    tally = Tally()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as watcher:
        model = (await watcher.get("/v1/models")).json()["data"][0]["id"]
        begin = time.monotonic()
        running = [
            asyncio.create_task(client_loop(url, key, model, number, begin + seconds, leave, tally))
            for number in range(clients)
        ]
        sizes = []
        while not all(task.done() for task in running):
            await asyncio.wait(running, timeout=every)
            now = await metric(watcher)
            sizes.append(now["process_resident_memory_bytes"] / 2**20)
            print(
                f"{time.monotonic() - begin:6.0f} s  {sizes[-1]:7.1f} MiB  "
                f"{now['adacd_running_rows']:3.0f} run  {now['adacd_queue_length']:3.0f} wait  "
                f"{dict(tally.outcomes)}",
                file=sys.stderr,
                flush=True,
            )
        taken = time.monotonic() - begin
        for _ in range(100):
            now = await metric(watcher)
            if now["adacd_running_rows"] == now["adacd_queue_length"] == 0:
                break
            await asyncio.sleep(0.1)
    rows, queue = now["adacd_running_rows"], now["adacd_queue_length"]
    first = sorted(tally.first)
    p50, p95 = (
        (first[min(len(first) - 1, int(len(first) * share))] for share in (0.5, 0.95)) if first else (0, 0)
    )
    done = tally.outcomes["ok"]
    counts = ", ".join(
        f"{tally.outcomes[name]} {name}" for name in ("ok", "left", "refused", "failed", "lost")
    )
    print(
        f"{clients} clients, {taken:.0f} s: {counts}; {done / taken:.2f} requests/s, "
        f"{tally.tokens / taken:.1f} tokens/s; first token p50 {p50:.3f} s, p95 {p95:.3f} s; "
        f"rows left {rows:.0f}, queue left {queue:.0f}; memory {_curve(sizes)}",
        flush=True,
    )
    for problem, count in tally.problems.most_common(10):
        print(f"  {count} × {problem}")
    tally.outcomes["left behind"] = int(rows + queue)
    return tally


def _curve(sizes: list[float]) -> str:
    parts = [sizes[int(share * (len(sizes) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    return " → ".join(f"{part:.0f}" for part in parts) + " MiB"


@contextmanager
def own_server(arguments: list[str]) -> Iterator[str]:
    """A server of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "adacd_cli", "serve", "--quiet", "--port", str(port), *arguments]
    process = subprocess.Popen(command, env={**os.environ})
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        print(f"the server ended with exit code {process.wait(60)}", file=sys.stderr)


def main() -> None:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running server, such as http://127.0.0.1:8000")
    parser.add_argument("--key", default=os.environ.get("ADACD_API_KEY"))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--leave", type=float, default=0.33, help="share of the requests that are left early")
    parser.add_argument("--every", type=float, default=10, help="seconds between looks at the memory")
    parser.add_argument("--sweep", help="numbers of clients, such as 1,4,16,64; nobody leaves")
    parser.add_argument("--seconds", type=float, default=30, help="of each number of the sweep")
    parser.add_argument("server", nargs="*", help="arguments of the server")
    asked = parser.parse_args()

    async def run(url: str) -> list[Tally]:
        if asked.sweep is None:
            return [await load(url, asked.key, asked.clients, asked.minutes * 60, asked.leave, asked.every)]
        numbers = [int(number) for number in asked.sweep.split(",")]
        return [await load(url, asked.key, number, asked.seconds, 0, asked.seconds) for number in numbers]

    if asked.url is not None:
        tallies = asyncio.run(run(asked.url))
    else:
        with own_server(asked.server) as url:
            tallies = asyncio.run(run(url))
    sys.exit(
        any(tally.lost or tally.outcomes["failed"] or tally.outcomes["left behind"] for tally in tallies)
    )


if __name__ == "__main__":
    main()
