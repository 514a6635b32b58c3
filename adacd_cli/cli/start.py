"""The console script, from the first instant to the last: Ctrl-C while the command's own code is still being
imported shows one word, and after the command has ended it is ignored and the process leaves at once."""

from __future__ import annotations

import gc
import signal
import sys

from adacd_cli.errors import INTERRUPTED


def main() -> None:
    try:
        from adacd_cli.cli.app import app  # the slow part of a start

        app()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        # Python takes a while to take torch down, and the answer is complete.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()  # else a million objects of torch are searched for garbage, for up to a second
