"""What the commands that take long share: options, prompts of files, several methods in one run, ready judges, and
how far they are: a bar with rate and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adacd_cli.cli.options import option, switch
from adacd_cli.cli.running import load_model, note, warn, with_extras
from adacd_cli.config import Resolved, Settings, change
from adacd_cli.config.methods import METHODS
from adacd_cli.errors import UsageError
from adacd_cli.evaluation.datasets.files import Columns
from adacd_cli.evaluation.datasets.load import load_samples
from adacd_cli.evaluation.judges import Judge, JudgeOptions, make_judge
from adacd_cli.render.screen import DIM, Screen

if TYPE_CHECKING:
    from adacd_cli.engine import LanguageModel

_SILENCE_S = 30.0  # seconds between two lines where there is no terminal
PAPERS_PAIR = ("default", "adacd")  # the methods where none is named

METHOD = option("NAME", "A decoding method; repeatable (default: default and adacd).", "--method")
JUDGE_URL = option("URL", "Judge openai: the endpoint, e.g. http://host:8000/v1.")
JUDGE_MODEL = option("NAME", "Judge openai: the endpoint's model.")
JUDGE_CACHE = option("DIR", "Judge openai: where its replies are kept (default: yours).")
ASPECTS = switch("Judge openai: rate Just-Eval's five aspects as well.", "--aspects")


def prompts_of(file: str, label: str, settings: Settings, column: str | None = None) -> list[str]:
    """The prompts of a file, all safe or all unsafe; shows what `load_samples` notes, and raises its errors."""
    own: dict[str, Any] = {"label": label, "columns": Columns(column)}
    (loaded,) = load_samples([file], data=None, limit=None, seed=0, offline=True, **own)
    warn(loaded.notes, settings)
    return [sample.prompt for sample in loaded.samples]


def method_runs(resolved: Resolved, base: Settings, methods: Sequence[str], *, done: str) -> list[Settings]:
    """The settings of each method, of which BASE is what is the same for all; default first, because the others are
    compared with it. DONE says for messages what the command does with them. UsageError where one is named twice,
    or an option is for none of them; the errors of `change`."""
    runs: dict[str, Settings] = {}
    for name in methods:
        settings = change(base, "method", name, "--method").model_copy(update={"gate": False})
        if settings.method_label in runs:
            raise UsageError(f"Method {name} is named twice.", "Leave one of them out.")
        runs[settings.method_label] = settings
    used = [settings.effective_method for settings in runs.values()]
    for owner in METHODS.values():
        given = owner.resource and resolved.sources[owner.resource].kind == "flag"
        if given and getattr(base, owner.resource) is not None and owner.name not in used:
            hint = f"Add --method {owner.name}, or leave it out."
            raise UsageError(f"`{owner.resource}` is for method {owner.name}, which is not {done}.", hint)
    return sorted(runs.values(), key=lambda settings: settings.method != "default")


def load_for_all(runs: Sequence[Settings]) -> LanguageModel:
    """The model with everything that the runs' methods need; ConfigurationError where one lacks its profile."""
    from adacd_cli.profiles.store import applied

    model = load_model(runs[0], for_long=True)
    for settings in runs:
        applied(settings, model.profile)
    return with_extras(model, runs[0], [settings.effective_method for settings in runs])


def make_judges(
    names: Sequence[str], settings: Settings, *, cache: str | None, device: str | None = None, **own: Any
) -> list[Judge]:
    """The judges of these names, each asked whether it can judge, so that hours of decoding are not lost. `cache`
    and OWN (url, model, aspects) are of judge openai, `device` and the settings of those that are models.
    UsageError where a name is given twice or an option is for no judge; the errors of the judges."""
    if len(set(names)) < len(names):
        raise UsageError("A judge is named twice.", "Leave one of them out.")
    if own["aspects"] and not any(name.partition("=")[0] == "openai" for name in names):
        raise UsageError("--aspects is for judge openai, which is not asked.", "Add --judge openai.")
    if cache is not None:
        own["cache"] = Path(cache).expanduser()
    own |= {"device": device or settings.device, "threads": settings.threads, "offline": settings.offline}
    judges = [make_judge(name, JudgeOptions(**own)) for name in names]
    for judge in judges:
        judge.check()
        warn(getattr(judge, "warnings", ()), settings)
    return judges


class Tally:
    """Counts TOTAL things on stderr, DONE of them before; silent with `quiet` and `display` none."""

    def __init__(self, title: str, total: int, unit: str, settings: Settings, *, done: int = 0) -> None:
        self._title, self._total, self._unit, self._display = title, total, unit, settings.display
        self._done, self._before = done, done
        self._bar: Any = None
        self._silent = _is_silent(settings) or total == done

    def __enter__(self) -> Tally:
        self._screen = Screen(sys.stderr, self._display)
        self._begin = self._said = time.monotonic()
        if not self._silent and self._screen.can_redraw:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            title, rate = (
                TextColumn(each, markup=False) for each in ("{task.description}", "{task.fields[rate]}")
            )
            columns = title, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._silent and self._done > self._before:
            self._say()

    def add(self, _: object = None) -> None:
        self.set(self._done + 1)

    def set(self, done: int) -> None:
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{self._rate():.1f} {self._unit}/s")
        elif not self._silent and time.monotonic() - self._said > _SILENCE_S:
            self._say()

    def _rate(self) -> float:
        return (self._done - self._before) / max(time.monotonic() - self._begin, 1e-9)

    def _say(self) -> None:
        self._said, rate = time.monotonic(), self._rate()
        left = (self._total - self._done) / rate if rate else 0.0
        remaining = f", {left:.0f} s left" if left >= 1 else ""
        line = f"{self._title}: {self._done} of {self._total} {self._unit}, {rate:.1f} a second{remaining}"
        self._screen.put_line((line, DIM))


@contextmanager
def pace(title: str, total: int, settings: Settings) -> Iterator[Callable[[str], None]]:
    """What says which of TOTAL comes next; a bar that moves by itself would take time from what is timed."""
    if _is_silent(settings):
        yield lambda what: None
        return
    screen, said, numbers = Screen(sys.stderr, settings.display), time.monotonic(), count(1)

    def say(what: str) -> None:
        nonlocal said
        line = f"{title} {next(numbers)} of {total}: {what}"
        if screen.can_redraw:
            screen.redraw(line)
        elif time.monotonic() - said > _SILENCE_S:
            said = time.monotonic()
            screen.put_line((line, DIM))

    try:
        yield say
    finally:
        screen.erase()


def _is_silent(settings: Settings) -> bool:
    return settings.quiet or settings.display == "none"


@contextmanager
def keeping(settings: Settings, kept: Callable[[], str]) -> Iterator[None]:
    """Says at Ctrl-C what of a long run is kept, and that the same command goes on from there."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"\n{kept()}; the same command goes on from there.", settings)
        raise
