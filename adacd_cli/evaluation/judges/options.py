"""What the judges are told: where an endpoint or a model is found, and how hard it may be worked.

Values only. The key of an endpoint comes from the environment and is shown by nothing, `repr` included.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adacd_cli.errors import UsageError

KEY_VARIABLES = ("ADACD_JUDGE_KEY", "OPENAI_API_KEY")
"""Where an endpoint's key is looked for, in this order."""


def _say_nothing(line: str) -> None:
    pass


def key_of_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """The first key that is set to more than white space; None without one."""
    variables = os.environ if environment is None else environment
    found = (variables.get(name, "").strip() for name in KEY_VARIABLES)
    return next(filter(None, found), None)


def default_cache_folder() -> Path:
    """The user's own folder for what an endpoint said: `adacd` in the place the system has for caches."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "adacd"


@dataclass(frozen=True)
class JudgeOptions:
    """Options of all judges; each reads its own.

    Attributes:
        url: address of an OpenAI-compatible endpoint, e.g. http://localhost:8000/v1; None is OpenAI's own.
        model: the model that the endpoint judges with.
        key: the endpoint's key; None sends none.
        concurrency: requests at the endpoint at once, at least 1.
        timeout: seconds one request may take, the whole of it, above 0.
        cache: folder for what the endpoint said; None keeps nothing.
        aspects: also ask the endpoint for Just-Eval's five aspects.
        device: where wildguard and minos run, as `--device` takes it.
        dtype: number format of their weights, as `--dtype` takes it.
        batch_size: answers they read at once, at least 1.
        threads: CPU threads they compute with; None is the number of free cores.
        offline: use only models that are already on this machine.
        progress: told in short lines what is being done.

    Raises:
        UsageError: a number is out of range.
    """

    url: str | None = None
    model: str | None = None
    key: str | None = field(default_factory=key_of_environment, repr=False)
    concurrency: int = 8
    timeout: float = 60.0
    cache: Path | None = field(default_factory=default_cache_folder)
    aspects: bool = False
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int = 8
    threads: int | None = None
    offline: bool = False
    progress: Callable[[str], None] = field(default=_say_nothing, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in (("concurrency", self.concurrency), ("batch_size", self.batch_size)):
            if value < 1:
                raise UsageError(f"`{name}` of a judge is at least 1; got {value}.")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise UsageError(f"`timeout` of a judge is in seconds, above 0; got {self.timeout:g}.")
