"""Under torchrun: the same command in several processes that divide one model, of which the first speaks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from adacd_cli.errors import INTERRUPTED, UsageError

_SECONDS_TO_SPEAK = 30.0
"""How long the first process has to say why the command failed, before another one that failed says it."""


@contextmanager
def taking_part(words: Sequence[str]) -> Iterator[None]:
    """Makes this process one of torchrun's while the command runs, where it is one; elsewhere does nothing.

    None reads stdin, which they would have to share, and only the first writes. torchrun ends them all as
    soon as one has failed, so the others wait with that until the first has said why. One that is not ended
    by then failed alone, and says why itself.

    Args:
        words: the command line.

    Raises:
        UsageError: the command is not made for several processes.
    """
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    from adacd_cli.loading.parallel import is_first, processes

    if processes() == 1:
        yield
        return
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if is_first():
        _refuse(words)
        yield
        return
    stderr = sys.stderr
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        _refuse(words)
        yield
    except Exception as error:
        if not (isinstance(error, typer.Exit) and error.exit_code in (0, INTERRUPTED)):
            time.sleep(_SECONDS_TO_SPEAK)
            sys.stderr = stderr
        raise


def _refuse(words: Sequence[str]) -> None:
    if not words or words[0] != "generate":
        raise UsageError(
            "Under torchrun, which divides one model over processes, `adacd generate` runs and nothing else.",
            "Run it without torchrun; `adacd eval --ray` uses several GPUs, one model each.",
        )
    if any(word == "-o" or word.partition("=")[0] == "--output" for word in words):
        raise UsageError(
            "--output cannot be used under torchrun: every process would write it.", "Redirect stdout."
        )
