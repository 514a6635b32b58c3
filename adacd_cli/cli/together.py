"""Under torchrun: the same command in several processes that divide one model, of which the first speaks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from adacd_cli.errors import UsageError

_SECONDS_TO_SPEAK = 3.0
"""How long the others wait before they fail: torchrun then ends the one that speaks as well."""


def take_part(words: Sequence[str]) -> None:
    """Makes this process one of torchrun's, where it is one; elsewhere does nothing.

    None reads stdin, which they would have to share, and only the first writes.

    Args:
        words: the command line.

    Raises:
        UsageError: the command is not made for several processes.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    from adacd_cli.loading.parallel import is_first, processes

    if processes() == 1:
        return
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    refusal = _refusal(words)
    if refusal is not None:
        if not is_first():
            time.sleep(_SECONDS_TO_SPEAK)
        raise refusal


def _refusal(words: Sequence[str]) -> UsageError | None:
    if not words or words[0] != "generate":
        return UsageError(
            "Under torchrun, which divides one model over processes, `adacd generate` runs and nothing else.",
            "Run it without torchrun; `adacd eval --ray` uses several GPUs, one model each.",
        )
    if any(word == "-o" or word.partition("=")[0] == "--output" for word in words):
        return UsageError(
            "--output cannot be used under torchrun: every process would write it.", "Redirect stdout."
        )
    return None
