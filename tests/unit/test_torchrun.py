"""Which of torchrun's processes says why a command failed."""

from __future__ import annotations

import sys

import pytest
import typer

from adacd_cli.cli import errors
from adacd_cli.cli.errors import taking_part
from adacd_cli.errors import INTERRUPTED, UsageError

REFUSED = "--output cannot be used under torchrun: every process would write it."


@pytest.fixture
def part(monkeypatch):
    """Makes this process one of two; returns how long it has slept each time."""
    naps: list[float] = []

    def become(rank: int) -> list[float]:
        for name, value in {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        for stream in ("stdin", "stdout", "stderr"):
            monkeypatch.setattr(sys, stream, getattr(sys, stream))
        monkeypatch.setattr(errors.time, "sleep", naps.append)
        return naps

    return become


@pytest.mark.parametrize(("rank", "naps"), [(0, []), (1, [errors._GRACE_S])])
def test_the_others_wait_before_they_say_what_is_refused(part, capsys, rank, naps):
    slept = part(rank)
    with pytest.raises(UsageError, match=REFUSED), taking_part(["generate", "-o", "f", "Hello"]):
        pytest.fail("ran what is refused")
    print("why", file=sys.stderr)
    assert (slept, capsys.readouterr().err) == (naps, "why\n")


@pytest.mark.parametrize(
    ("error", "rank", "waits"),
    [
        (UsageError("no"), 0, False),
        (UsageError("no"), 1, True),
        (ValueError("no"), 1, True),
        (typer.Exit(1), 1, True),
        (typer.Exit(0), 1, False),
        (typer.Exit(INTERRUPTED), 1, False),
        (KeyboardInterrupt(), 1, False),
    ],
)
def test_the_others_wait_with_an_end_that_would_end_the_first(part, error, rank, waits):
    slept = part(rank)
    with pytest.raises(type(error)), taking_part(["generate", "Hello"]):
        raise error
    assert slept == ([errors._GRACE_S] if waits else [])


def test_only_the_first_writes_and_none_reads(part, capsys):
    for rank in (0, 1):
        part(rank)
        with taking_part(["generate", "Hello"]):
            print(f"{rank} read {sys.stdin.read()!r}")
    assert capsys.readouterr().out == "0 read ''\n"


def test_a_process_of_its_own_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    stdin = sys.stdin
    with taking_part(["eval", "-o", "f"]):
        assert sys.stdin is stdin
