"""What `eval`, `judge` and `tune` share: the options of judges, and judges that are ready to judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adacd_cli.cli.running import warn
from adacd_cli.errors import UsageError

if TYPE_CHECKING:
    from adacd_cli.config import Settings
    from adacd_cli.evaluation.judges.base import Judge

JudgeOption = Annotated[
    str,
    typer.Option("--judge", metavar="NAME", help="keyword, wildguard, minos or openai; NAME=MODEL."),
]
JudgeUrlOption = Annotated[
    str | None,
    typer.Option("--judge-url", metavar="URL", help="Judge openai: the endpoint, e.g. http://host:8000/v1."),
]
JudgeModelOption = Annotated[
    str | None, typer.Option("--judge-model", metavar="NAME", help="Judge openai: the endpoint's model.")
]
JudgeCacheOption = Annotated[
    str | None,
    typer.Option(
        "--judge-cache", metavar="DIR", help="Judge openai: where its replies are kept (default: yours)."
    ),
]
JudgeDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--judge-device",
        metavar="NAME",
        help="Judges wildguard and minos: where they run (default: as --device).",
    ),
]
AspectsOption = Annotated[
    bool, typer.Option("--aspects", help="Judge openai: rate Just-Eval's five aspects as well.")
]


def make_judges(
    names: Sequence[str],
    settings: Settings,
    *,
    url: str | None = None,
    model: str | None = None,
    cache: str | None = None,
    device: str | None = None,
    aspects: bool = False,
) -> list[Judge]:
    """The judges of these names, each asked whether it can judge, so that hours of decoding are not lost.

    Args:
        settings: device, threads and offline of judges that are models; `quiet`.
        url, model, cache, aspects: of judge openai.
        device: of judges that are models; None is the settings'.

    Raises:
        UsageError: a name is unknown or given twice, or an option is missing.
        EnvironmentFault: a judge cannot be had, or is down.
    """
    from adacd_cli.evaluation.judges.base import JudgeOptions
    from adacd_cli.evaluation.judges.registry import make_judge

    if len(set(names)) < len(names):
        raise UsageError("A judge is named twice.", "Leave one of them out.")
    if aspects and not any(name.partition("=")[0] == "openai" for name in names):
        raise UsageError("--aspects is for judge openai, which is not asked.", "Add --judge openai.")
    where: dict[str, Any] = {} if cache is None else {"cache": Path(cache).expanduser()}
    options = JudgeOptions(
        url=url,
        model=model,
        aspects=aspects,
        device=settings.device if device is None else device,
        threads=settings.threads,
        offline=settings.offline,
        **where,
    )
    judges = [make_judge(name, options) for name in names]
    for judge in judges:
        judge.check()
        warn(getattr(judge, "warnings", ()), settings)
    return judges
