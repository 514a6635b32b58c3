"""Under torchrun: the same command in several processes that share one model; only the first one writes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from adacd_cli.errors import INTERRUPTED, UsageError

_GRACE_S = 30.0  # that the first process has to report its error before another that failed reports it


@contextmanager
def taking_part(words: Sequence[str]) -> Iterator[None]:
    """While the command runs in a process of torchrun: nothing is read from stdin, and only the first writes.
    torchrun ends all processes as soon as one fails, so the others wait until the first has reported its error. One
    that is still running then failed alone, and reports its own. Outside torchrun this does nothing. UsageError
    where the command cannot run in several processes."""
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    from adacd_cli.loading.hardware import is_first, processes

    if processes() == 1:
        yield
        return
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    stderr, first = sys.stderr, is_first()
    if not first:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        _refuse(words)
        yield
    except Exception as error:
        if not (first or (isinstance(error, typer.Exit) and error.exit_code in (0, INTERRUPTED))):
            time.sleep(_GRACE_S)
            sys.stderr = stderr
        raise


def _refuse(words: Sequence[str]) -> None:
    if not words or words[0] != "generate":
        raise UsageError(
            "Under torchrun, which divides one model over processes, `adacd generate` runs and nothing else.",
            "Run it without torchrun; `adacd eval --ray` uses several GPUs, one model each.",
        )
    if any(word == "-o" or word.partition("=")[0] == "--output" for word in words):
        hint = "Redirect stdout."
        raise UsageError("--output cannot be used under torchrun: every process would write it.", hint)
