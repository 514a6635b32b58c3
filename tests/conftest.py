"""Tests run offline, on one thread a worker, and without the developer's own ADACD_* variables and profiles.

A test that is about profiles takes the fixture `profiles`.
"""

from __future__ import annotations

import os
import signal

# before anything imports transformers or torch, which read these once, or a fixture of a module starts a server
os.environ.update(
    HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", ADACD_PROFILE="none"
)

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from adacd_cli.cli.app import app

# A shell's background job ignores Ctrl-C, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Outcome(NamedTuple):
    """What a run of the command line left behind."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Outcome]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a grid, a test over several parameters, every second place is slow: each value is still met."""
    for item in items:
        place: Any = getattr(item, "callspec", None)
        if item.get_closest_marker("grid") and sum(place.indices.values()) % 2:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("ADACD_") and name != "ADACD_PROFILE"]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _no_profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For what reads no environment, such as `load("demo")` in Python: no profile is saved or bundled."""
    from adacd_cli.profiles import store

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setattr(store, "bundled", lambda: [])
        yield


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's folder of profiles, which is used and empty; none comes with the package."""
    from adacd_cli.profiles import store

    monkeypatch.delenv("ADACD_PROFILE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return store.folder()


@pytest.fixture
def adacd() -> RunCommand:
    """Runs `adacd ARGUMENTS…` in this process, boundary included; stdin is empty unless given."""

    def run(*arguments: str, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Outcome:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
