"""Errors and notices that come as events: what each command shows of them, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adacd_cli.errors import AdacdError, OutOfMemoryError, PromptError, error_named
from adacd_cli.events import Event, Failed, Notice, raise_failures
from tests.conftest import RunCommand
from tests.fakes import saying, scripted
from tests.traces import events, plain, started

FAILED = Failed(0, "OutOfMemoryError", "There is no memory left.", "Use a smaller model.")
SHOWN = "Error: There is no memory left.\nHint: Use a smaller model.\n"
NOTICE = Notice("Compiling failed.")
BEGUN = events(started(), [plain("Half")])[:-1]


@pytest.fixture
def adacd_with(adacd: RunCommand, monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Runs a command over these events in place of decoding."""

    def run(coming: list[Event], *arguments: str) -> object:
        def decode(*_: object, **__: object) -> Iterator[Event]:
            yield from coming

        monkeypatch.setattr("adacd_cli.loading.load", lambda settings, **_: scripted(saying(("", "x"))))
        monkeypatch.setattr("adacd_cli.cli.running.decode", decode)
        monkeypatch.setattr("adacd_cli.cli.answer.make_requests", requests)
        monkeypatch.setattr("adacd_cli.cli.running.make_requests", requests)
        return adacd(*arguments)

    return run


def requests(model: object, questions: list[str], settings: object, **_: object) -> list[object]:
    from adacd_cli.engine import Request
    from adacd_cli.prompts import Prompt, Prompts

    return [Request(Prompts({"unprompted": Prompt((1,))}), settings, 0) for _ in questions]


@pytest.mark.parametrize("command", ["generate", "explain"])
def test_a_failed_request_is_an_error_and_its_exit_code(adacd_with: RunCommand, command: str) -> None:
    code, out, err = adacd_with([*BEGUN, FAILED], command, "Hi")
    assert (code, err) == (1, SHOWN)
    assert out.endswith("\n") is (command == "explain")


@pytest.mark.parametrize("command", ["generate", "explain"])
def test_json_lines_tell_of_a_failure_and_of_a_notice(adacd_with: RunCommand, command: str) -> None:
    code, out, err = adacd_with([NOTICE, *BEGUN, FAILED], command, "Hi", "--json")
    assert (code, err) == (1, SHOWN)
    kinds = [json.loads(line)["event"] for line in out.splitlines()]
    assert kinds == ["notice", "started", "token", "failed"]


def test_a_notice_is_a_line_on_stderr_unless_quiet(adacd_with: RunCommand) -> None:
    answered = [NOTICE, *events(started(), [plain("Yes")])]
    code, out, err = adacd_with(answered, "generate", "Hi", "--no-stats")
    assert (code, out, err) == (0, "Yes\n", "Warning: Compiling failed.\n")
    assert adacd_with(answered, "generate", "Hi", "-q") == (0, "Yes\n", "")


def test_the_other_lines_of_a_file_are_answered(adacd_with: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text("one\ntwo\n")
    second = [replace(event, request=1) for event in events(started(), [plain("B")])]
    code, out, err = adacd_with([*BEGUN, *second, FAILED], "generate", "-f", str(file), "--no-stats")
    assert (code, out) == (1, "Half\nB\n")
    assert err == f"1/2  one\n{SHOWN}2/2  two\n"


def test_a_failed_run_of_compare_is_an_error(adacd_with: RunCommand) -> None:
    code, out, err = adacd_with([FAILED], "compare", "Hi")
    assert (code, out, err) == (1, "", SHOWN)
    code, out, err = adacd_with([FAILED], "compare", "Hi", "--json")
    assert (code, [json.loads(line)["request"] for line in out.splitlines()]) == (1, [0, 1])


def test_a_failure_is_raised_as_the_error_that_it_names() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        list(raise_failures([*BEGUN, FAILED]))
    assert (caught.value.message, caught.value.hint) == (FAILED.message, FAILED.hint)
    assert type(error_named("PromptError", "m")) is PromptError
    for name in ("NoSuchError", "INTERRUPTED", "ClassVar", "first_line", "Exception"):
        assert type(error_named(name, "m")) is AdacdError
