"""Every screen in the README is what the program prints today."""

from __future__ import annotations

import pytest

from tests.readme import README, blocks, masked, run

BLOCKS = blocks(README.read_text(encoding="utf-8"))


def test_there_are_screens():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("command", "screen"), BLOCKS, ids=[command for command, _ in BLOCKS])
def test_a_screen_is_what_the_command_prints(command, screen):
    assert masked(run(command)) == masked(screen)
