"""The exceptions of adacd: every failure that has a name, what to do about it, and its exit code. Only `cli.errors`
shows them; nothing here imports anything of the project."""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED = 130  # exit code after Ctrl-C: 128 + SIGINT


class AdacdError(Exception):
    """A failure with a name.

    Args:
        message: what went wrong and why, one sentence, ending in a full stop.
        hint: what the user can do, one sentence; empty when there is nothing.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LogitsError(AdacdError):
    """A step's logits hold NaN or infinite values, so no token can be chosen."""


class OutOfMemoryError(AdacdError):
    """The device or the machine ran out of memory."""


class ServerError(AdacdError):
    """A served model's engine failed or went away while it answered."""


class OutputError(AdacdError):
    """A file or stream could not be written."""


class UsageError(AdacdError):
    """The command line, the input or the prompt cannot be used."""

    exit_code = 2


class ConfigurationError(UsageError):
    """A setting is unknown, out of range or malformed."""


class PromptError(UsageError):
    """No prompt pair can be made of this conversation and this chat template."""


class EnvironmentFault(AdacdError):
    """The machine lacks what is needed."""

    exit_code = 3


class ModelError(EnvironmentFault):
    """The model cannot be found, read or used."""


class DeviceError(EnvironmentFault):
    """No such device, or no such dtype on this device."""


class MissingExtraError(EnvironmentFault):
    """An optional package is not installed; the hint is the pip command."""


def error_named(name: str, message: str, hint: str = "") -> AdacdError:
    """The error of that class, as a Failed event names it; an AdacdError where there is no such class."""
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, AdacdError):
        return kind(message, hint)
    return AdacdError(message, hint)


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
