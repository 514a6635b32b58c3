"""How loading reports where it is: short lines to a function, never bars or log lines on the terminal."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str], None]
"""Shows a line on what is being done."""

_SILENCED = ("huggingface_hub", "accelerate", "torchao", "bitsandbytes", "torch")
_NOISE = (
    "LOAD REPORT",  # `load_weights` reports it in a sentence
    "with its weights packed",  # logged for every GGUF that is not float32, packed or not
)
_SECONDS_BETWEEN_LINES = 0.5


def bar_class(progress: Progress, title: str = "Downloading") -> Any:
    """A tqdm class for libraries that draw bars: it reports `title 37 %`, or bytes, and draws nothing."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        monitor_interval = 0  # no watching thread

        def __init__(self, *args: Any, **keywords: Any) -> None:
            keywords.pop("name", None)
            drawing = {"file": io.StringIO(), "mininterval": _SECONDS_BETWEEN_LINES, "disable": False}
            super().__init__(*args, **{**keywords, **drawing})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            # The hub counts the bytes it receives and those it writes in two bars: one is enough.
            if self.n and self.total and self.desc != "Downloading bytes":
                if self.unit == "B":
                    progress(f"{title} {self.n / 1e9:.2f} of {self.total / 1e9:.2f} GB")
                elif not (self.desc or "").startswith("Fetching"):
                    progress(f"{title} {100 * self.n // self.total:.0f} %")
            return True

    Bar.set_lock(threading.RLock())  # the default is a lock between processes
    return Bar


class _Kept(logging.Handler):
    """Keeps the first line of each warning, once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage().strip().partition("\n")[0]
        if line and line not in self.lines and not any(noise in line for noise in _NOISE):
            self.lines.append(line)


@contextmanager
def muted(*names: str, handler: logging.Handler | None = None) -> Iterator[None]:
    """Sends what these loggers say to the handler, or nowhere."""
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler or logging.NullHandler()], False
    try:
        yield
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def quiet(progress: Progress) -> Iterator[list[str]]:
    """Silences the libraries' bars, logs and warnings; gives the list transformers' own warnings go to. What
    transformers logs later, while decoding, shows only if it is an error."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging as transformers_logging

    bar = bar_class(progress, "Loading weights")
    kept = _Kept()
    transformers_logging.set_verbosity_warning()
    hook = transformers_logging.set_tqdm_hook(lambda factory, args, keywords: bar(*args, **keywords))
    gguf_bar, gguf.tqdm = gguf.tqdm, bar  # this module takes tqdm directly, past the hook
    try:
        with muted("transformers", handler=kept), muted(*_SILENCED), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield kept.lines
    finally:
        transformers_logging.set_verbosity_error()
        transformers_logging.set_tqdm_hook(hook)
        gguf.tqdm = gguf_bar
