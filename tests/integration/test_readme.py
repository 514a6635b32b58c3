"""Every screen in the README is what the program prints today."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from typer.testing import CliRunner

from adacd_cli.cli.app import app
from tests.readme import README, blocks, masked, run

BLOCKS = blocks(README.read_text(encoding="utf-8"))


def test_there_are_screens():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("command", "screen"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_a_screen_is_what_the_command_prints(command, screen):
    assert masked(printed(command)) == masked(screen)


def printed(command):
    """What a shell would show of it; `adacd` at the end of the pipe runs in this process, for speed."""
    before, _, last = command.rpartition("| ")
    program, *words = shlex.split(last)
    if program != "adacd":
        return run(command)
    piped = subprocess.run(["sh", "-c", before.strip()], capture_output=True, check=True).stdout
    return CliRunner().invoke(app, words, input=piped, env={"COLUMNS": "80"}).output
