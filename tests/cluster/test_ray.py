"""`adacd eval --ray` on clusters of simulated nodes, one core each: as on one machine, whatever dies.

Needs the extra ray, and runs only when asked for: `make test-cluster`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

CHECKOUT = Path(__file__).resolve().parents[2]
SECRET = "marzipan"
"""A word of every prompt, which no log may hold."""


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """Nodes take it over; Ray's watch over memory would kill workers beside other tests."""
    own = {
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that takes no worker, and two nodes that take one each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.first, cluster.second = (cluster.add_node(num_cpus=1) for _ in range(2))
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "many.txt"
    path.write_text("".join(f"How do I bake {SECRET} cake number {number}?\n" for number in range(60)))
    return path


def arguments(prompts: Path, run: Path, *more: str) -> list[str]:
    settings = ("--label", "safe", "--threads", "1", "-n", "40", "--batch-size", "3")
    return ["eval", "--dataset", str(prompts), "--output", str(run), *settings, *more]


def start(prompts: Path, run: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adacd_cli", *arguments(prompts, run, *more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "answers.jsonl").read_text().splitlines()]


def said(run: Path) -> list[dict[str, Any]]:
    """Everything but the times, in an order of its own: a sample that is there twice shows."""
    times = ("seconds", "cpu_seconds", "batch")
    rows = [{name: value for name, value in row.items() if name not in times} for row in answers(run)]
    return sorted(rows, key=lambda row: (row["method"], row["dataset"], row["id"]))


def wait_for_answers(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    path = run / "answers.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_two_nodes_give_what_one_machine_gives(adacd, cluster, prompts, tmp_path):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    assert adacd(*arguments(prompts, alone)).code == 0
    code, out, err = finish(start(prompts, spread, f"--ray={cluster.address}"))
    assert code == 0, err
    assert out == (spread / "report.md").read_text()
    assert [line for line in err.splitlines() if not line.startswith(("Answering: ", "Judging: "))] == [
        f"The report is {spread / 'report.html'}; numbers are in {spread / 'results.json'}."
    ]
    assert said(spread) == said(alone)
    assert {path.name for path in spread.iterdir()} == {path.name for path in alone.iterdir()}
    for name in ("run.json", "model.json"):
        assert (spread / name).read_text() == (alone / name).read_text()
    mine, theirs = (json.loads((run / "results.json").read_text()) for run in (spread, alone))
    assert (mine["provenance"]["ray"]["nodes"], mine["provenance"]["ray"]["workers"]) == (2, 2)
    assert [one["threads"] for one in mine["provenance"]["ray"]["machines"]] == [1, 1]
    assert mine["provenance"]["machine"] == theirs["provenance"]["machine"]
    session = Path(cluster.head_node.get_session_dir_path())
    logs = [path for path in session.rglob("*") if path.is_file()]
    assert logs
    assert [path for path in logs if SECRET.encode() in path.read_bytes()] == []


def test_a_node_that_is_killed_half_way_costs_no_sample_and_doubles_none(adacd, cluster, prompts, tmp_path):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    process = start(prompts, spread, "--ray", cluster.address)
    wait_for_answers(spread, 40, process)
    cluster.remove_node(cluster.second, allow_graceful=False)
    before = len(answers(spread))
    code, out, err = finish(process)
    assert code == 0, err
    assert (out, before < 120) == ((spread / "report.md").read_text(), True)
    assert adacd(*arguments(prompts, alone)).code == 0
    assert Counter((row["method"], row["id"]) for row in answers(spread)).most_common(1)[0][1] == 1
    assert said(spread) == said(alone)


def test_ctrl_c_keeps_what_was_finished_and_one_machine_goes_on(adacd, cluster, prompts, tmp_path):
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    process = start(prompts, spread, "--ray", cluster.address)
    wait_for_answers(spread, 12, process)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    kept = answers(spread)
    assert (code, out) == (130, "")
    assert err.endswith(
        f"{len(kept)} answers are kept in {spread}; the same command goes on from there.\nInterrupted.\n"
    )
    assert "Traceback" not in err
    assert adacd(*arguments(prompts, spread)).code == 0
    assert answers(spread)[: len(kept)] == kept
    assert adacd(*arguments(prompts, alone)).code == 0
    assert said(spread) == said(alone)


def test_a_worker_without_the_model_says_so_with_its_node(cluster, prompts, tmp_path):
    model = tmp_path / "nowhere"
    code, out, err = finish(start(prompts, tmp_path / "run", "-m", str(model), f"--ray={cluster.address}"))
    address = cluster.address.rpartition(":")[0]
    assert (code, out) == (3, "")
    assert err.startswith(f"Error: On node {address}: ")
    assert str(model) in err
    assert len(err.splitlines()) == 2


def test_an_address_where_nothing_answers(prompts, tmp_path):
    began = time.monotonic()
    code, out, err = finish(start(prompts, tmp_path / "run", "--ray", "127.0.0.1:9"))
    assert (code, out) == (3, "")
    error, hint = err.splitlines()
    assert error == "Error: No Ray cluster answers at 127.0.0.1:9: connection refused."
    assert "ray status" in hint
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - began < 60  # Ray by itself would take two minutes


def test_ray_alone_starts_one_on_this_machine_and_leaves_none_behind(prompts, tmp_path):
    run = tmp_path / "run"
    code, _, err = finish(start(prompts, run, "--limit", "3", "--ray"))
    assert code == 0, err
    assert len(answers(run)) == 6
    assert json.loads((run / "results.json").read_text())["provenance"]["ray"]["nodes"] == 1
    from ray import init

    with pytest.raises(ConnectionError, match="Could not find any running Ray instance"):
        init(address="auto")
