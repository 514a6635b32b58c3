"""Commands in processes of their own that have done their imports, which take seconds, where one forks at once.

The standard library's fork server imports once for all tests of a worker. A command has streams, signals and an
exit code of its own, as after `python -m adacd_cli`, which is for tests of the start itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import get_context, reduction
from typing import Any

from adacd_cli.cli.start import main
from adacd_cli.loading import load  # noqa: F401  # what is imported here is there in every process
from adacd_cli.loading.local import import_libraries, import_modelling
from tests.conftest import Outcome

import_libraries()
import_modelling()
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])
_CAPTURED = -1


class Process:
    """A running `adacd ARGUMENTS…`, or program with them.

    Args:
        stdin, stdout, stderr: descriptors, None for a closed one; else stdin is empty, and what is written is kept
            for `end`.
        program: a function of a module.
        env: what its environment has besides that of the tests.
    """

    def __init__(
        self,
        *arguments: Any,
        stdin: int | None = _CAPTURED,
        stdout: int | None = _CAPTURED,
        stderr: int | None = _CAPTURED,
        program: Callable[..., Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._files = [open(os.devnull, "rb"), *(tempfile.TemporaryFile() for _ in range(2))]  # noqa: SIM115
        streams = [
            _Descriptor(file.fileno()) if given == _CAPTURED else given and _Descriptor(given)
            for given, file in zip((stdin, stdout, stderr), self._files, strict=True)
        ]
        environment = {**os.environ, **(env or {})}
        self._process = _CONTEXT.Process(
            target=_run, args=(program or _adacd, arguments, streams, environment, os.getcwd()), daemon=True
        )
        self._process.start()

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    def send(self, signal: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal)

    def end(self) -> Outcome:
        """What it leaves behind, once it has ended; the exit code is -N after a signal N."""
        self._process.join(120)
        assert self._process.exitcode is not None, "it does not end"
        for file in self._files:
            file.seek(0)
        _, out, err = (file.read().decode() for file in self._files)
        for file in self._files:
            file.close()
        return Outcome(self._process.exitcode, out, err)


def run(*arguments: Any, **more: Any) -> Outcome:
    """What such a process leaves behind."""
    return Process(*arguments, **more).end()


class _Descriptor:
    """A file descriptor that another process is given."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return _received, (reduction.DupFd(self.number),)


def _received(descriptor: Any) -> int:
    return int(descriptor.detach())


def _adacd(*arguments: str) -> None:
    sys.argv = ["adacd", *arguments]
    main()


def _run(
    program: Callable[..., Any],
    arguments: tuple[Any, ...],
    streams: list[int | None],
    environment: dict[str, str],
    folder: str,
) -> None:
    for own, given in enumerate(streams):
        if given is None:
            os.close(own)
        else:
            os.dup2(given, own)
            os.close(given)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # as the interpreter opens them
    sys.stdin = None if streams[0] is None else open(0, closefd=False)  # type: ignore[assignment]  # noqa: SIM115
    sys.stdout = None if streams[1] is None else open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = None if streams[2] is None else open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    program(*arguments)
