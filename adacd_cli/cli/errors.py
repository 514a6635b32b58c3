"""The boundary around every command: whatever is raised becomes `Error: …`, `Hint: …` and an exit code. Nothing
else in adacd prints an error, or a traceback, which is shown only on request. Under torchrun the same command runs
in several processes that share one model, and only the first one writes."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import typer
import typer.core

from adacd_cli.cli.streams import escapes, prepare_streams
from adacd_cli.counting import counted
from adacd_cli.errors import INTERRUPTED, AdacdError, OutOfMemoryError, OutputError, UsageError

_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}
_GRACE_S = 30.0  # that the first process has to report its error before another that failed reports it

_debug: ContextVar[bool] = ContextVar("debug", default=False)


def guarded(run: Callable[[], int], *, debug: bool) -> int:
    """The exit code of the command, whose error is shown, with DEBUG after the traceback."""
    prepare_streams()
    _debug.set(debug)
    try:
        code = run()
        sys.stdout.flush()
        if lost := sum(escapes):
            _show(f"Warning: {counted(lost, 'character')} could not be written in this encoding: escaped.")
        return code
    except BrokenPipeError:  # the reader has what it wanted, e.g. `| head -1`
        _discard_stdout()
        return 0
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
        _show("Interrupted.")
    except SystemExit:
        raise
    except BaseException as error:
        code = show_error(error)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stdout()
    return code


def show_error(error: BaseException) -> int:
    """Shows an error on stderr and gives its exit code; for a command that goes on after one, too."""
    if _debug.get():
        traceback.print_exception(error)
    named = _named(error)
    _show(f"Error: {named.message}")
    if named.hint:
        _show(f"Hint: {named.hint}")
    return named.exit_code


def shows_tracebacks() -> bool:
    return _debug.get()


def _discard_stdout() -> None:
    # so that Python's own flush at exit has nothing to complain about
    with suppress(OSError, ValueError):  # a test's stream has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(line: str) -> None:
    print(line.translate(_CONTROLS), file=sys.stderr, flush=True)


def _named(error: BaseException) -> AdacdError:
    if isinstance(error, AdacdError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage(error)
    # torch raises a plain RuntimeError when the CPU's memory runs out
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or on_cpu:
        hint = "Try a smaller --max-new-tokens or --batch-size, --dtype bfloat16 or --quantize."
        return OutOfMemoryError("Out of memory.", hint)
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        _discard_stdout()
        return OutputError(f"The output could not be written: {error.strerror}.")
    first_line = next(iter(str(error).splitlines()), "").rstrip(".")
    return AdacdError(
        f"Something unexpected went wrong: {type(error).__name__}: {first_line}.",
        "Run it again with --debug to see where, and please report it.",
    )


def _usage(error: typer.TyperException) -> UsageError:
    """typer's own complaints about the command line, in our words."""
    context = getattr(error, "ctx", None)
    hint = f"`{context.command_path} --help` lists the options." if context else ""
    option = getattr(error, "option_name", None)
    message = error.format_message()
    if hasattr(error, "possibilities"):
        message = f"There is no option {option}."
        if option in ("--tokenizer", "--served-model") and context is not None:
            whose = f"it is for a model at a server, which `{context.command_path}` cannot use"
            message = f"There is no option {option} here: {whose}."
        if error.possibilities:
            hint = f"Did you mean {error.possibilities[0]}?"
    elif option is not None and "requires an argument" in message:
        message, hint = f"{option} takes a value.", f"Write it after {option}."
    elif "unexpected extra argument" in message:
        hint = "Put quotes around a prompt of several words."
    elif (
        isinstance(own := getattr(error, "param", None), typer.core.TyperOption)
        and own.type_descriptor.annotation is int  # a number of the command itself
    ):
        bound = "" if own.min is None else f", at least {own.min}"
        bound = bound if own.max is None else f" from {own.min} to {own.max}"
        message = f"{max(own.opts, key=len)} takes a whole number{bound}."
    return UsageError(message if message.endswith((".", "?")) else f"{message}.", hint)


@contextmanager
def taking_part(words: Sequence[str]) -> Iterator[None]:
    """While the command runs in a process of torchrun: nothing is read from stdin, and only the first writes.
    torchrun ends all processes as soon as one fails, so the others wait until the first has reported its error. One
    that is still running then failed alone, and reports its own. UsageError where the command cannot run so."""
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
