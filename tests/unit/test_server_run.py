"""How a server ends: its exit codes by the signals that came."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from adacd_cli.server.run import Signals, run


class Decoding:
    """A worker that is decoding while signals come."""

    state = "ready"

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers, self.signals = numbers, Signals(self, lambda: None)  # type: ignore[arg-type]

    def serve(self, scheduler: Any) -> None:
        for number in self._numbers:
            self.signals.take(number, None)

    def stop(self) -> None:
        self.state = "stopping"


def ended(*numbers: int) -> tuple[int, bool]:
    """The exit code, and whether what was being sent was cut off."""
    worker, cut = Decoding(numbers), []
    http = SimpleNamespace(start=lambda: None, stop=lambda at_once: cut.append(at_once))
    code = run(http, worker, worker.signals, lambda: None, lambda scheduler: None, lambda _: 9)  # type: ignore
    return code, cut[0]


def test_the_first_signal_lets_answers_be_finished_and_a_second_sigterm_says_that_they_were_not() -> None:
    assert ended(signal.SIGTERM) == (0, False)
    assert ended(signal.SIGINT) == (130, False)
    assert ended(signal.SIGTERM, signal.SIGTERM) == (143, True)


def test_a_second_ctrl_c_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(signal.SIGINT, signal.SIGINT)
